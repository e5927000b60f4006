# `snakemake --set-scatter bags=8` has 8 jobs search the neighbours of a part of the images each.
scattergather:
    bags=1,


rule bags_shard:
    input:
        unpack(lambda wildcards: PLAN.bags_inputs(wildcards.bags)),
        listing=PLAN.listing("train"),
    output:
        temp("results/{study}/bags/shards/{bags}-{scatteritem}-{identity}.h5"),
    log:
        "logs/{study}/bags/{bags}-{scatteritem}-{identity}.log",
    priority: 2  # students wait for it, most of what else is ready is waited for by the report alone
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    resources:
        gpu=GPU,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        settings=lambda wildcards: settings.bags_settings(STUDY, wildcards.bags),
        sources=lambda wildcards: flags(**PLAN.bags_inputs(wildcards.bags)),
        part=lambda wildcards: flags(part=wildcards.scatteritem),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " bags --settings {params.settings:q} --listing {params.listing}"
        " {params.sources} {params.part} --output {output}"
        " --log {log} --threads {threads}"


use rule bags_shard as bags with:
    input:
        unpack(lambda wildcards: PLAN.bags_inputs(wildcards.bags)),
        listing=PLAN.listing("train"),
        shards=branch(
            lambda wildcards: wildcards.bags in PLAN.searched_bags(),
            then=lambda wildcards: shards(
                gather.bags,
                "results/{study}/bags/shards/{bags}",
                wildcards,
                settings.bags_settings(STUDY, wildcards.bags),
            ),
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
        settings=lambda wildcards: settings.bags_settings(STUDY, wildcards.bags),
        sources=lambda wildcards: flags(**PLAN.bags_inputs(wildcards.bags)),
        part=lambda wildcards, input: flags(shard=input.get("shards", [])),


rule sheets:
    input:
        listing=PLAN.listing("train"),
        bags="results/{study}/bags/{bags}.h5",
    output:
        random=report(
            "results/{study}/bags/{bags}.png",
            category="Bags",
            labels={"bags": "{bags}"},
        ),
        more="results/{study}/figures/more-{bags}.png",
    log:
        "logs/{study}/sheets/{bags}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        version=bags.SHEET_VERSION,
        pages=lambda wildcards, output: flags(
            page=[f"{name}={path}" for name, path in output.items()]
        ),
    shell:
        "python -m bingo sheets --listing {params.listing} --bags {input.bags} {params.pages} --log {log}"


use rule sheets as ranked_sheets with:
    output:
        best=report(
            "results/{study}/figures/best-{bags}.png",
            category="Bags",
            labels={"bags": "{bags}, the best"},
        ),
        worst=report(
            "results/{study}/figures/worst-{bags}.png",
            category="Bags",
            labels={"bags": "{bags}, the worst"},
        ),
    log:
        "logs/{study}/sheets/{bags}-ranked.log",
