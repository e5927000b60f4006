rule evaluation:
    input:
        listing="results/{study}/data/train-listing.h5",
        val_listing="results/{study}/data/val-listing.h5",
        model=lambda wildcards: PLAN.weights(wildcards.model, int(wildcards.seed)),
    output:
        result="results/{study}/evaluation/{model}/seed-{seed}/{protocol}.json",
    log:
        "logs/{study}/evaluation/{model}/seed-{seed}/{protocol}.log",
    benchmark:
        "results/{study}/benchmarks/evaluation/{model}/seed-{seed}/{protocol}.tsv"
    conda:
        "../../envs/bingo.yaml"
    threads: 1
    resources:
        gpu=GPU,
        workers=STUDY.data.workers,
    params:
        settings=lambda wildcards: jobs.evaluation_settings(
            STUDY, wildcards.model, wildcards.protocol, int(wildcards.seed)
        ),
    shell:
        "python -m bingo evaluation --settings {params.settings:q} --listing {input.listing}"
        " --val-listing {input.val_listing} --model {input.model} --output {output.result}"
        " --log {log} --threads {threads} --workers {resources.workers}"
