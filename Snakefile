from snakemake.utils import min_version, validate

min_version("9.20")

# Only without --configfile: Snakemake would merge the demo's teachers and students into another study.
if not workflow.configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/teacher.smk"
include: "workflow/rules/embeddings.smk"
include: "workflow/rules/bags.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/student.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/detection.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        PLAN.path("report.html"),
        PLAN.paths("tables/{}.md", PLAN.tables),
        PLAN.all_results(),
