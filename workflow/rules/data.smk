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
    threads: 2
    params:
        settings=lambda wildcards: jobs.data_settings(STUDY, wildcards.split),
        train=lambda wildcards, input: flags(**{"train-listing": input.train}),
    shell:
        "python -m bingo data --settings {params.settings:q} --output {output.listing}"
        " {params.train} --log {log} --threads {threads}"
