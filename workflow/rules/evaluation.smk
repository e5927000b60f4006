rule evaluation:
    input:
        unpack(job_inputs("evaluation")),
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
        settings=job_settings("evaluation"),
        files=job_flags("evaluation", "listing", "val_listing", "label_list"),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " evaluation --settings {params.settings:q} {params.files}"
        " --weights {input.weights} --output {output.result}"
        " --log {log} --threads {threads} --workers {resources.workers}"
