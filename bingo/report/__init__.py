"""The report stage: one page that shows what a study found."""

STAGE_VERSION = 2
