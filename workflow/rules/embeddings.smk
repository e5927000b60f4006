# `snakemake --set-scatter embeddings=8` distributes the images over 8 jobs.
scattergather:
    embeddings=1,


rule embeddings_shard:
    input:
        listing=PLAN.listing("train"),
        teacher="results/{study}/teachers/{teacher}.safetensors",
    output:
        temp("results/{study}/embeddings/shards/{teacher}-{scatteritem}-{identity}.h5"),
    log:
        "logs/{study}/embeddings/{teacher}-{scatteritem}-{identity}.log",
    priority: 2  # students wait for this job; most other ready jobs are only for the report
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    resources:
        gpu=GPU,
        nodes=1,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=job_settings("embeddings"),
        part=lambda wildcards: flags(part=wildcards.scatteritem),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " embeddings --settings {params.settings:q} --listing {params.listing}"
        " --teacher {input.teacher} {params.part} --output {output}"
        " --log {log} --threads {threads} --workers {resources.workers}"


use rule embeddings_shard as embeddings with:
    input:
        listing=PLAN.listing("train"),
        teacher="results/{study}/teachers/{teacher}.safetensors",
        shards=job_shards("embeddings"),
    output:
        embeddings="results/{study}/embeddings/{teacher}.h5",
    log:
        "logs/{study}/embeddings/{teacher}.log",
    benchmark:
        "results/{study}/benchmarks/embeddings/{teacher}.tsv"
    resources:
        gpu=lambda wildcards, input: 0 if input.get("shards") else GPU,
        nodes=1,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=job_settings("embeddings"),
        part=lambda wildcards, input: flags(shards=input.get("shards", [])),
