rule data:
    input:
        unpack(job_inputs("data")),
        folders=lambda wildcards: PLAN.facts.folders[wildcards.split],
    output:
        listing="results/{study}/data/{split}-listing.h5",
    log:
        "logs/{study}/data/{split}.log",
    conda:
        "../../envs/bingo.yaml"
    # Only folders are decoded. The listing of a built-in dataset does not need to wait for two cores.
    threads: lambda wildcards, input: 2 if input.folders else 1
    params:
        key=lambda wildcards: job("data", wildcards).key,
        settings=job_settings("data"),
        train=lambda wildcards, input: job("data", wildcards).flags("train_listing"),
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
        settings=job_settings("pack"),
    shell:
        "python -m bingo stage pack --settings {params.settings:q} --listing {input.listing}"
        " --output {output.pack} --log {log} --threads {threads}"


use rule data as transfer_data with:
    input:
        unpack(job_inputs("data")),
        folders=lambda wildcards: PLAN.targets[wildcards.target].folders[
            wildcards.split
        ],
    output:
        listing="results/{study}/data/{target}/{split}-listing.h5",
    log:
        "logs/{study}/data/{target}/{split}.log",
