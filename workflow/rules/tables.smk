rule tables:
    input:
        [path for table in PLAN.tables for path in PLAN.table_results(table)],
        PLAN.paths("tables/{}.csv", PLAN.tables),
        PLAN.paths("tables/{}.md", PLAN.tables),


rule tables_so_far:
    input:
        PLAN.paths("tables-so-far/{}.csv", PLAN.tables),
        PLAN.paths("tables-so-far/{}.md", PLAN.tables),


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
        results=lambda wildcards: PLAN.table_results(wildcards.table),
    shell:
        "python -m bingo table --settings {params.settings:q} --output {output.table}"
        " {params.published} --log {log} {params.results}"


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


# The same of the results that are there.
use rule table as table_so_far with:
    input:
        unpack(lambda wildcards: PLAN.published(wildcards.table)),
        results=lambda wildcards: PLAN.results_so_far(wildcards.table),
    output:
        table="results/{study}/tables-so-far/{table}.csv",
    log:
        "logs/{study}/table_so_far/{table}.log",
    params:
        settings=lambda wildcards: settings.table_settings(
            STUDY, wildcards.table, PLAN.table_evaluations(wildcards.table)
        ),
        published=lambda wildcards: flags(**PLAN.published(wildcards.table)),
        results=lambda wildcards: PLAN.results_so_far(wildcards.table),


use rule table_text as table_text_so_far with:
    input:
        table="results/{study}/tables-so-far/{table}.csv",
    output:
        markdown="results/{study}/tables-so-far/{table}.md",
        latex="results/{study}/tables-so-far/{table}.tex",
    log:
        "logs/{study}/table_text_so_far/{table}.log",
