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
        version=figures.STAGE_VERSION,
    shell:
        "python -m bingo accuracy-figure --table {input.table}"
        " --output {output.svg} --output {output.png} --log {log}"


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
        version=figures.STAGE_VERSION,
        logs=[f"{name}={path}" for name, path in PLAN.training_logs().items()],
    shell:
        "python -m bingo training-figure --output {output.svg} --output {output.png} --log {log} {params.logs:q}"
