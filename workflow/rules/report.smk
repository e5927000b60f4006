rule report:
    input:
        tables=PLAN.paths("tables/{}.csv", PLAN.tables),
        texts=PLAN.paths("tables/{}.md", PLAN.tables),
        figures=PLAN.paths("figures/{}.svg", PLAN.figures()),
        sheets=PLAN.sheets().values(),
        bags=PLAN.paths("bags/{}.h5", STUDY.bags),
        models=PLAN.all_weights(),
        results=PLAN.all_results(),
    output:
        report="results/{study}/report.html",
    log:
        "logs/{study}/report.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=settings.report_settings(STUDY, PLAN.left_out),
        inputs=flags(
            table=PLAN.paths("tables/{}.csv", PLAN.tables),
            figure=PLAN.paths("figures/{}.svg", PLAN.figures()),
            sheet=[f"{name}={path}" for name, path in PLAN.sheets().items()],
            bags=PLAN.paths("bags/{}.h5", STUDY.bags),
            model=PLAN.all_weights(),
            benchmark=[
                f"{stage}={path}"
                for stage, paths in PLAN.benchmarks().items()
                for path in paths
            ],
        ),
    shell:
        "python -m bingo report --settings {params.settings:q} --output {output.report} --log {log}"
        " {params.inputs}"
