rule student:
    input:
        unpack(job_inputs("student")),
    output:
        backbone="results/{study}/students/{student}/seed-{seed}/backbone.safetensors",
        head="results/{study}/students/{student}/seed-{seed}/head.safetensors",
        log="results/{study}/students/{student}/seed-{seed}/log.csv",
    log:
        "logs/{study}/student/{student}/seed-{seed}.log",
    benchmark:
        "results/{study}/benchmarks/student/{student}/seed-{seed}.tsv"
    priority: 1
    conda:
        "../../envs/bingo.yaml"
    threads: 1
    resources:
        gpu=GPU,
        nodes=1,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=job_settings("student"),
        sources=job_flags("student", "teacher", "targets", "bags"),
        folder=subpath(output.backbone, parent=True),
    # The folder of events is not a param, because it does not change the result and must not trigger a rerun.
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " student --settings {params.settings:q} --name {wildcards.student}"
        " --listing {params.listing} {params.sources} --output {params.folder}"
        " --events logs/{wildcards.study}/tensorboard/student/{wildcards.student}/seed-{wildcards.seed}"
        " --log {log} --threads {threads} --workers {resources.workers}"
