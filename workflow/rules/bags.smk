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
        settings=lambda wildcards: settings.bags_settings(STUDY, wildcards.bags),
        sources=lambda wildcards: flags(**PLAN.bags_inputs(wildcards.bags)),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " bags --settings {params.settings:q} --listing {input.listing}"
        " {params.sources} --output {output.bags}"
        " --log {log} --threads {threads}"


rule sheets:
    input:
        listing="results/{study}/data/train-listing.h5",
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
        version=bags.SHEET_VERSION,
        pages=lambda wildcards, output: flags(
            page=[f"{name}={path}" for name, path in output.items()]
        ),
    shell:
        "python -m bingo sheets --listing {input.listing} --bags {input.bags} {params.pages} --log {log}"


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
