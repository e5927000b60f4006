rule data:
    input:
        folders=PLAN.facts.folders,
    output:
        listing="results/{study}/data/listing.h5",
    log:
        "logs/{study}/data.log",
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    params:
        settings=jobs.data_settings(STUDY),
    shell:
        "python -m bingo data --settings {params.settings:q} --output {output.listing}"
        " --log {log} --threads {threads}"
