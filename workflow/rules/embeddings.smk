rule embeddings:
    input:
        listing="results/{study}/data/train-listing.h5",
        teacher="results/{study}/teachers/{teacher}.safetensors",
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
        gpu=GPU,
        nodes=1,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        settings=settings.embeddings_settings(STUDY),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --nodes {resources.nodes}"
        " embeddings --settings {params.settings:q} --listing {input.listing}"
        " --teacher {input.teacher} --output {output.embeddings}"
        " --log {log} --threads {threads} --workers {resources.workers}"
