rule accuracy_figure:
    input:
        unpack(job_inputs("accuracy_figure")),
    output:
        svg="results/{study}/figures/accuracy-{table}.svg",
        png="results/{study}/figures/accuracy-{table}.png",
    log:
        "logs/{study}/accuracy_figure/{table}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=job_settings("accuracy_figure"),
    shell:
        "python -m bingo stage accuracy_figure"
        " --settings {params.settings:q} --table {input.table}"
        " --output {output.svg} --output {output.png} --log {log}"


rule bag_size_figure:
    input:
        unpack(job_inputs("bag_size_figure")),
    output:
        svg="results/{study}/figures/bag-size.svg",
        png="results/{study}/figures/bag-size.png",
    log:
        "logs/{study}/bag_size_figure.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=job_settings("bag_size_figure"),
        results=PLAN.bag_size_results(),
        files=lambda wildcards, input: job("bag_size_figure", wildcards).flags(
            "results"
        ),
    shell:
        "python -m bingo stage bag_size_figure"
        " --settings {params.settings:q} {params.files}"
        " --output {output.svg} --output {output.png} --log {log}"


rule training_figure:
    input:
        unpack(job_inputs("training_figure")),
    output:
        svg="results/{study}/figures/training.svg",
        png="results/{study}/figures/training.png",
    log:
        "logs/{study}/training_figure.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=job_settings("training_figure"),
        logs=[f"{name}={path}" for name, path in PLAN.training_logs().items()],
        files=lambda wildcards, input: job("training_figure", wildcards).flags("logs"),
    shell:
        "python -m bingo stage training_figure"
        " --settings {params.settings:q} {params.files}"
        " --output {output.svg} --output {output.png} --log {log}"


rule purity_figure:
    input:
        unpack(job_inputs("purity_figure")),
    output:
        svg="results/{study}/figures/purity-{teacher}.svg",
        png="results/{study}/figures/purity-{teacher}.png",
    log:
        "logs/{study}/purity_figure/{teacher}.log",
    conda:
        "../../envs/bingo.yaml"
    threads: 2
    resources:
        gpu=GPU,
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        version=JOBS["purity_figure"].STAGE_VERSION,
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1 purity_figure"
        " --listing {params.listing} --embeddings {input.embeddings} --teacher {input.teacher}"
        " --output {output.svg} --output {output.png} --log {log} --threads {threads}"


rule similarity_figure:
    input:
        unpack(job_inputs("similarity_figure")),
    output:
        svg="results/{study}/figures/similarity-{bags}.svg",
        png="results/{study}/figures/similarity-{bags}.png",
    log:
        "logs/{study}/similarity_figure/{bags}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        version=JOBS["similarity_figure"].STAGE_VERSION,
    shell:
        "python -m bingo stage similarity_figure"
        " --listing {params.listing} --bags {input.bags}"
        " --output {output.svg} --output {output.png} --log {log}"


rule map_figure:
    input:
        unpack(job_inputs("map_figure")),
    output:
        svg="results/{study}/figures/map-{model}.svg",
        png="results/{study}/figures/map-{model}.png",
    log:
        "logs/{study}/map_figure/{model}.log",
    conda:
        "../../envs/bingo.yaml"
    threads: 1
    resources:
        gpu=GPU,
        workers=STUDY.data.workers,
        cpus_per_gpu=cpus_per_process,
    params:
        listing=lambda wildcards: job("map_figure", wildcards).inputs["listing"],
        settings=job_settings("map_figure"),
        weights=lambda wildcards: job("map_figure", wildcards).inputs["weights"],
        split=PLAN.map_split(),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1 map_figure"
        " --settings {params.settings:q} --listing {params.listing} --split {params.split} --weights {params.weights}"
        " --output {output.svg} --output {output.png} --log {log} --threads {threads} --workers {resources.workers}"
