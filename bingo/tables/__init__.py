"""The tables stage: result files as rows, then as Markdown and LaTeX."""

STAGE_VERSION = 2
