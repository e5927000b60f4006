rule report:
    input:
        unpack(lambda wildcards: job("report", wildcards).inputs),
        texts=PLAN.paths("tables/{}.md", PLAN.tables),
        results=PLAN.all_results(),
    output:
        report="results/{study}/report.html",
    log:
        "logs/{study}/report.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=settings("report"),
        inputs=flags("report", "table", "figure", "sheet", "bags", "model", "benchmark"),
    shell:
        "python -m bingo stage report --settings {params.settings:q} --output {output.report} --log {log}"
        " {params.inputs}"
