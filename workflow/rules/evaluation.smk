rule evaluation:
    input:
        unpack(lambda wildcards: PLAN.evaluation_inputs(wildcards.evaluation)),
        model=lambda wildcards: PLAN.weights(wildcards.model, int(wildcards.seed)),
    output:
        result="results/{study}/evaluation/{model}/seed-{seed}/{evaluation}.json",
    log:
        "logs/{study}/evaluation/{model}/seed-{seed}/{evaluation}.log",
    benchmark:
        "results/{study}/benchmarks/evaluation/{model}/seed-{seed}/{evaluation}.tsv"
    wildcard_constraints:
        evaluation="|".join(PLAN.classifications()) or "-",
    conda:
        "../../envs/bingo.yaml"
    threads: 1
    resources:
        gpu=GPU,
        nodes=1,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        settings=lambda wildcards: settings.evaluation_settings(
            STUDY, wildcards.model, wildcards.evaluation, int(wildcards.seed)
        ),
        files=lambda wildcards: flags(**PLAN.evaluation_inputs(wildcards.evaluation)),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " evaluation --settings {params.settings:q} {params.files}"
        " --model {input.model} --output {output.result}"
        " --log {log} --threads {threads} --workers {resources.workers}"
