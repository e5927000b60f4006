rule teacher:
    input:
        listing="results/{study}/data/train-listing.h5",
    output:
        teacher="results/{study}/teachers/{teacher}.safetensors",
        log="results/{study}/teachers/{teacher}.csv",
    log:
        "logs/{study}/teacher/{teacher}.log",
    benchmark:
        "results/{study}/benchmarks/teacher/{teacher}.tsv"
    priority: 1  # everything but the students trained alone waits for it
    conda:
        "../../envs/bingo.yaml"
    threads: 1  # on a CPU, two threads wait for each other whenever anything else runs
    resources:
        gpu=GPU,
        workers=STUDY.data.workers,
    params:
        settings=lambda wildcards: jobs.teacher_settings(STUDY, wildcards.teacher),
    shell:
        "python -m bingo teacher --settings {params.settings:q} --name {wildcards.teacher}"
        " --listing {input.listing} --output {output.teacher} --training-log {output.log}"
        " --log {log} --threads {threads} --workers {resources.workers}"
