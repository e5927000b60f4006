rule bags:
    input:
        unpack(lambda wildcards: PLAN.bags_inputs(wildcards.bags)),
        listing="results/{study}/data/train-listing.h5",
    output:
        bags="results/{study}/bags/{bags}.h5",
    log:
        "logs/{study}/bags/{bags}.log",
    benchmark:
        "results/{study}/benchmarks/bags/{bags}.tsv"
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    resources:
        gpu=GPU,
    params:
        settings=lambda wildcards: jobs.bags_settings(STUDY, wildcards.bags),
        sources=lambda wildcards: flags(**PLAN.bags_inputs(wildcards.bags)),
    shell:
        "python -m bingo bags --settings {params.settings:q} --listing {input.listing}"
        " {params.sources} --output {output.bags}"
        " --log {log} --threads {threads}"


rule sheet:
    input:
        listing="results/{study}/data/train-listing.h5",
        bags="results/{study}/bags/{bags}.h5",
    output:
        sheet=report(
            "results/{study}/bags/{bags}.png",
            category="Bags",
            labels={"bags": "{bags}"},
        ),
    log:
        "logs/{study}/sheet/{bags}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        version=bags.STAGE_VERSION,
    shell:
        "python -m bingo sheet --listing {input.listing}"
        " --bags {input.bags} --output {output.sheet} --log {log}"
