rule report:
    input:
        unpack(job_inputs("report")),
        texts=PLAN.paths("tables/{}.md", PLAN.tables),
        results=PLAN.all_results(),
    output:
        report="results/{study}/report.html",
    log:
        "logs/{study}/report.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=job_settings("report"),
        inputs=job_flags(
            "report", "table", "figure", "sheet", "bags", "model", "benchmark"
        ),
    shell:
        "python -m bingo stage report --settings {params.settings:q} --output {output.report} --log {log}"
        " {params.inputs}"
