# `snakemake --set-scatter bags=8` distributes the neighbour search over 8 jobs.
scattergather:
    bags=1,


rule bags_shard:
    input:
        unpack(job_inputs("bags")),
    output:
        temp("results/{study}/bags/shards/{bags}-{scatteritem}-{identity}.h5"),
    log:
        "logs/{study}/bags/{bags}-{scatteritem}-{identity}.log",
    priority: 2  # students wait for this job; most other ready jobs are only for the report
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    resources:
        gpu=GPU,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=job_settings("bags"),
        sources=job_flags("bags", "teacher", "embeddings"),
        part=lambda wildcards: flags(part=wildcards.scatteritem),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " bags --settings {params.settings:q} --listing {params.listing}"
        " {params.sources} {params.part} --output {output}"
        " --log {log} --threads {threads}"


use rule bags_shard as bags with:
    input:
        unpack(job_inputs("bags")),
        shards=branch(
            lambda wildcards: job("bags", wildcards).is_searched(),
            then=job_shards("bags"),
        ),
    output:
        bags="results/{study}/bags/{bags}.h5",
    log:
        "logs/{study}/bags/{bags}.log",
    benchmark:
        "results/{study}/benchmarks/bags/{bags}.tsv"
    resources:
        gpu=lambda wildcards, input: (
            0 if input.get("shards") or not input.get("embeddings") else GPU
        ),
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=job_settings("bags"),
        sources=job_flags("bags", "teacher", "embeddings"),
        part=lambda wildcards, input: flags(shards=input.get("shards", [])),


rule sheets:
    input:
        listing=PLAN.listing("train"),
        bags="results/{study}/bags/{bags}.h5",
    output:
        random="results/{study}/bags/{bags}.png",
        more="results/{study}/figures/more-{bags}.png",
    log:
        "logs/{study}/sheets/{bags}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        version=JOBS["sheets"].STAGE_VERSION,
        pages=lambda wildcards, output: flags(
            pages=[f"{name}={path}" for name, path in output.items()]
        ),
    shell:
        "python -m bingo stage sheets --listing {params.listing} --bags {input.bags} {params.pages} --log {log}"


use rule sheets as ranked_sheets with:
    output:
        best="results/{study}/figures/best-{bags}.png",
        worst="results/{study}/figures/worst-{bags}.png",
    log:
        "logs/{study}/sheets/{bags}-ranked.log",
