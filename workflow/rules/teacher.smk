rule teacher:
    input:
        listing=PLAN.listing("train"),
    output:
        teacher="results/{study}/teachers/{teacher}.safetensors",
        log="results/{study}/teachers/{teacher}.csv",
    log:
        "logs/{study}/teacher/{teacher}.log",
    benchmark:
        "results/{study}/benchmarks/teacher/{teacher}.tsv"
    wildcard_constraints:
        teacher="|".join(PLAN.trained_teachers()) or "-",
    priority: 2  # all other jobs except students without a teacher wait for it
    conda:
        "../../envs/bingo.yaml"
    threads: 2  # on a CPU, most other jobs wait for the teacher
    resources:
        gpu=GPU,
        nodes=1,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=job_settings("teacher"),
    # The folder of events is not a param, because it does not change the result and must not trigger a rerun.
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " teacher --settings {params.settings:q} --name {wildcards.teacher}"
        " --listing {params.listing} --output {output.teacher} --training-log {output.log}"
        " --events logs/{wildcards.study}/tensorboard/teacher/{wildcards.teacher}"
        " --log {log} --threads {threads} --workers {resources.workers}"


rule imported_teacher:
    input:
        checkpoint=lambda wildcards: PLAN.checkpoints()[wildcards.teacher],
    output:
        teacher="results/{study}/teachers/{teacher}.safetensors",
    log:
        "logs/{study}/teacher/{teacher}.log",
    wildcard_constraints:
        teacher="|".join(PLAN.checkpoints()) or "-",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=job_settings("imported_teacher"),
        checkpoint=lambda wildcards: PLAN.checkpoints()[wildcards.teacher],
    shell:
        "python -m bingo stage imported_teacher --settings {params.settings:q} --checkpoint {params.checkpoint:q}"
        " --output {output.teacher} --log {log} --threads {threads}"
