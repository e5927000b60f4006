rule report:
    input:
        tables=PLAN.paths("tables/{}.csv", PLAN.tables),
        figures=PLAN.paths("figures/accuracy-{}.svg", PLAN.tables)
        + PLAN.paths("figures/{}.svg", ["training"] if PLAN.training_logs() else []),
        sheets=PLAN.paths("bags/{}.png", STUDY.bags),
        bags=PLAN.paths("bags/{}.h5", STUDY.bags),
        models=PLAN.all_weights(),
    output:
        report="results/{study}/report.html",
    log:
        "logs/{study}/report.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=jobs.report_settings(STUDY, PLAN.left_out),
        inputs=lambda wildcards, input: flags(
            table=input.tables,
            figure=input.figures,
            sheet=input.sheets,
            bags=input.bags,
            model=input.models,
        ),
    shell:
        "python -m bingo report --settings {params.settings:q} --output {output.report} --log {log}"
        " {params.inputs}"
