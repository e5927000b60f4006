"""The table_text stage: render a table as Markdown and LaTeX."""

from bingo.artifacts.files import write_text
from bingo.report.table import read_table, readable_table
from bingo.study.report_jobs import TableTextJob

# pandas escapes cells, but not the caption.
_LATEX = str.maketrans(
    {character: rf"\{character}" for character in "&%$#_{}"}
    | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
)


def run(job: TableTextJob, threads: int) -> None:  # noqa: ARG001
    """Render a table's CSV as Markdown and LaTeX, in the layout of `readable_table`.

    Raises:
        BingoError: the table is damaged.
    """
    readable, footnote = readable_table(read_table(job.table))
    text = readable.to_markdown(index=False, disable_numparse=True)
    write_text(job.markdown, f"# {job.title}\n\n{text}\n\n{footnote}\n")
    write_text(
        job.latex, readable.to_latex(index=False, caption=job.title.translate(_LATEX), escape=True, position="t")
    )
