# `snakemake` looks here first; the Snakemake Workflow Catalog, and `module:` of other workflows, at workflow/Snakefile.
include: "workflow/Snakefile"


# An included file's default target does not count.
workflow.default_target = "all"
