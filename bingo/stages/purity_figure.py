"""The purity_figure stage."""

from bingo.report.neighbours import draw_purity
from bingo.study.report_jobs import PurityFigureJob


def run(job: PurityFigureJob, threads: int) -> None:  # noqa: ARG001
    """Draw how often an image's nearest neighbours share its label.

    Raises:
        BingoError: an input does not exist, is damaged, or does not belong to the others.
    """
    draw_purity(job.listing, job.embeddings, job.teacher, job.output)
