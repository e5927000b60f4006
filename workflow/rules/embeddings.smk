# `snakemake --set-scatter embeddings=8` has 8 jobs embed a part of the images each.
scattergather:
    embeddings=1,


rule embeddings:
    input:
        listing="results/{study}/data/train-listing.h5",
        teacher="results/{study}/teachers/{teacher}.safetensors",
        shards=lambda wildcards: shards(
            gather.embeddings,
            "results/{study}/embeddings/shards/{teacher}-{{scatteritem}}.h5",
            wildcards,
        ),
    output:
        embeddings="results/{study}/embeddings/{teacher}.h5",
    log:
        "logs/{study}/embeddings/{teacher}.log",
    benchmark:
        "results/{study}/benchmarks/embeddings/{teacher}.tsv"
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    resources:
        gpu=lambda wildcards, input: 0 if input.get("shards") else GPU,
        workers=STUDY.data.workers,
    params:
        settings=settings.embeddings_settings(STUDY),
        part=lambda wildcards, input: flags(shard=input.get("shards", [])),
    shell:
        "python -m bingo embeddings --settings {params.settings:q} --listing {input.listing}"
        " --teacher {input.teacher} {params.part} --output {output}"
        " --log {log} --threads {threads} --workers {resources.workers}"


use rule embeddings as embeddings_shard with:
    input:
        listing="results/{study}/data/train-listing.h5",
        teacher="results/{study}/teachers/{teacher}.safetensors",
    output:
        temp("results/{study}/embeddings/shards/{teacher}-{scatteritem}.h5"),
    log:
        "logs/{study}/embeddings/{teacher}-{scatteritem}.log",
    benchmark:
        "results/{study}/benchmarks/embeddings/shards/{teacher}-{scatteritem}.tsv"
    params:
        settings=settings.embeddings_settings(STUDY),
        part=lambda wildcards: flags(part=wildcards.scatteritem),
