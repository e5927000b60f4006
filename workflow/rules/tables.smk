rule tables:
    input:
        PLAN.paths("tables/{}.csv", PLAN.tables),
        PLAN.paths("tables/{}.md", PLAN.tables),


rule table:
    input:
        unpack(lambda wildcards: PLAN.published(wildcards.table)),
        results=lambda wildcards: PLAN.table_results(wildcards.table),
    output:
        table=report(
            "results/{study}/tables/{table}.csv",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "logs/{study}/table/{table}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=lambda wildcards: settings.table_settings(
            STUDY, wildcards.table, PLAN.table_evaluations(wildcards.table)
        ),
        published=lambda wildcards: flags(**PLAN.published(wildcards.table)),
    shell:
        "python -m bingo table --settings {params.settings:q} --output {output.table}"
        " {params.published} --log {log} {input.results}"


rule table_text:
    input:
        table="results/{study}/tables/{table}.csv",
    output:
        markdown="results/{study}/tables/{table}.md",
        latex="results/{study}/tables/{table}.tex",
    log:
        "logs/{study}/table_text/{table}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=lambda wildcards: settings.text_settings(STUDY, wildcards.table),
    shell:
        "python -m bingo text --settings {params.settings:q} --table {input.table}"
        " --markdown {output.markdown} --latex {output.latex} --log {log}"
