rule export:
    input:
        model=lambda wildcards: PLAN.weights(wildcards.model, int(wildcards.seed)),
    output:
        weights="results/{study}/export/{model}/seed-{seed}/detectron2.pkl",
    log:
        "logs/{study}/export/{model}/seed-{seed}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        version=export.STAGE_VERSION,
    shell:
        "python -m bingo export {input.model} --to detectron2 --output {output.weights} 2> {log}"
