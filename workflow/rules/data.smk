rule data:
    input:
        folders=lambda wildcards: PLAN.facts.folders[wildcards.split],
        # Validation images have the classes of the training images.
        train=branch(
            lambda wildcards: wildcards.split == "val",
            then="results/{study}/data/train-listing.h5",
        ),
    output:
        listing="results/{study}/data/{split}-listing.h5",
    log:
        "logs/{study}/data/{split}.log",
    conda:
        "../../envs/bingo.yaml"
    # Only files are decoded: the listing of a named set need not wait until two cores are free.
    threads: lambda wildcards, input: 2 if input.folders else 1
    params:
        key=lambda wildcards: job("data", wildcards).key,
        settings=settings("data"),
        train=lambda wildcards, input: options(**{"train-listing": input.train}),
    shell:
        "python -m bingo stage data --settings {params.settings:q} --key {params.key} --output {output.listing}"
        " {params.train} --log {log} --threads {threads}"


rule pack:
    input:
        listing="results/{study}/data/{split}-listing.h5",
    output:
        pack="results/{study}/data/{split}.h5",
    log:
        "logs/{study}/pack/{split}.log",
    wildcard_constraints:
        split="train|val" if PLAN.packed else "-",
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    params:
        settings=settings("pack"),
    shell:
        "python -m bingo stage pack --settings {params.settings:q} --listing {input.listing}"
        " --output {output.pack} --log {log} --threads {threads}"


use rule data as transfer_data with:
    input:
        folders=lambda wildcards: PLAN.targets[wildcards.target].folders[
            wildcards.split
        ],
        train=branch(
            lambda wildcards: wildcards.split == "val",
            then="results/{study}/data/{target}/train-listing.h5",
        ),
    output:
        listing="results/{study}/data/{target}/{split}-listing.h5",
    log:
        "logs/{study}/data/{target}/{split}.log",
