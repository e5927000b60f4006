rule targets:
    input:
        listing=PLAN.listing("train"),
        teacher="results/{study}/teachers/{teacher}.safetensors",
    output:
        targets="results/{study}/targets/{teacher}/{recipe}-{precision}-{layer}-{number}-{views}.h5",
    log:
        "logs/{study}/targets/{teacher}/{recipe}-{precision}-{layer}-{number}-{views}.log",
    benchmark:
        "results/{study}/benchmarks/targets/{teacher}/{recipe}-{precision}-{layer}-{number}-{views}.tsv"
    priority: 2  # students wait for this job
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
        settings=job_settings("targets"),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " targets --settings {params.settings:q} --listing {params.listing}"
        " --teacher {input.teacher} --output {output.targets}"
        " --log {log} --threads {threads} --workers {resources.workers}"
