rule accuracy_figure:
    input:
        table="results/{study}/tables/{table}.csv",
    output:
        svg=report(
            "results/{study}/figures/accuracy-{table}.svg",
            category="Figures",
            labels={"figure": "accuracy, {table}"},
        ),
        png="results/{study}/figures/accuracy-{table}.png",
    log:
        "logs/{study}/accuracy_figure/{table}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=lambda wildcards: settings.accuracy_figure_settings(
            STUDY, wildcards.table
        ),
    shell:
        "python -m bingo figure accuracy --settings {params.settings:q} --table {input.table}"
        " --output {output.svg} --output {output.png} --log {log}"


rule bag_size_figure:
    input:
        results=PLAN.bag_size_results(),
    output:
        svg=report(
            "results/{study}/figures/bag-size.svg",
            category="Figures",
            labels={"figure": "accuracy by bag size"},
        ),
        png="results/{study}/figures/bag-size.png",
    log:
        "logs/{study}/bag_size_figure.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=settings.bag_size_figure_settings(STUDY, PLAN.bag_size_evaluations()),
        results=PLAN.bag_size_results(),
    shell:
        "python -m bingo figure bag-size --settings {params.settings:q}"
        " --output {output.svg} --output {output.png} --log {log} {params.results}"


rule training_figure:
    input:
        PLAN.training_logs().values(),
    output:
        svg=report(
            "results/{study}/figures/training.svg",
            category="Figures",
            labels={"figure": "training"},
        ),
        png="results/{study}/figures/training.png",
    log:
        "logs/{study}/training_figure.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=settings.training_figure_settings(STUDY),
        logs=[f"{name}={path}" for name, path in PLAN.training_logs().items()],
    shell:
        "python -m bingo figure training --settings {params.settings:q}"
        " --output {output.svg} --output {output.png} --log {log} {params.logs:q}"


rule purity_figure:
    input:
        listing=PLAN.listing("train"),
        embeddings="results/{study}/embeddings/{teacher}.h5",
        teacher="results/{study}/teachers/{teacher}.safetensors",
    output:
        svg=report(
            "results/{study}/figures/purity-{teacher}.svg",
            category="Figures",
            labels={"figure": "purity of neighbours, {teacher}"},
        ),
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
        version=figures.STAGE_VERSION,
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " figure purity --listing {params.listing} --embeddings {input.embeddings}"
        " --teacher {input.teacher} --output {output.svg} --output {output.png}"
        " --log {log} --threads {threads}"


rule similarity_figure:
    input:
        listing=PLAN.listing("train"),
        bags="results/{study}/bags/{bags}.h5",
    output:
        svg=report(
            "results/{study}/figures/similarity-{bags}.svg",
            category="Figures",
            labels={"figure": "similarity in bags, {bags}"},
        ),
        png="results/{study}/figures/similarity-{bags}.png",
    log:
        "logs/{study}/similarity_figure/{bags}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        listing=lambda wildcards: PLAN.listing("train"),
        version=figures.STAGE_VERSION,
    shell:
        "python -m bingo figure similarity --listing {params.listing} --bags {input.bags}"
        " --output {output.svg} --output {output.png} --log {log}"


rule map_figure:
    input:
        listing=PLAN.map_listing(),
        model=lambda wildcards: PLAN.first_weights(wildcards.model),
    output:
        svg=report(
            "results/{study}/figures/map-{model}.svg",
            category="Figures",
            labels={"figure": "map of features, {model}"},
        ),
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
        listing=lambda wildcards: PLAN.map_listing(),
        settings=lambda wildcards: settings.map_figure_settings(STUDY, wildcards.model),
        model=lambda wildcards: PLAN.first_weights(wildcards.model),
        split=PLAN.map_split(),
    shell:
        "python -m bingo launch --gpus {resources.gpu} --processes 1"
        " figure map --settings {params.settings:q} --listing {params.listing}"
        " --split {params.split} --model {params.model} --output {output.svg} --output {output.png}"
        " --log {log} --threads {threads} --workers {resources.workers}"
