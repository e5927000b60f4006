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
        unpack(job_inputs("table")),
    output:
        table="results/{study}/tables/{table}.csv",
    log:
        "logs/{study}/table/{table}.log",
    conda:
        "../../envs/bingo.yaml"
    params:
        settings=job_settings("table"),
        published=job_flags("table", "published"),
        results=lambda wildcards: PLAN.table_results(wildcards.table),
        files=lambda wildcards, input: flags(results=input.get("results", [])),
    shell:
        "python -m bingo stage table --settings {params.settings:q} --output {output.table}"
        " {params.published} --log {log} {params.files}"


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
        settings=job_settings("table_text"),
    shell:
        "python -m bingo stage table_text --settings {params.settings:q} --table {input.table}"
        " --markdown {output.markdown} --latex {output.latex} --log {log}"


# The same tables from the results that exist.
use rule table as table_so_far with:
    input:
        results=results_so_far,
        published=lambda wildcards: job("table", wildcards).inputs.get("published", []),
    output:
        table="results/{study}/tables-so-far/{table}.csv",
    log:
        "logs/{study}/table_so_far/{table}.log",
    params:
        results=results_so_far,


use rule table_text as table_text_so_far with:
    input:
        table="results/{study}/tables-so-far/{table}.csv",
    output:
        markdown="results/{study}/tables-so-far/{table}.md",
        latex="results/{study}/tables-so-far/{table}.tex",
    log:
        "logs/{study}/table_text_so_far/{table}.log",
