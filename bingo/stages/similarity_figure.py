"""The similarity_figure stage."""

from bingo.report.neighbours import draw_similarity
from bingo.study.report_jobs import SimilarityFigureJob


def run(job: SimilarityFigureJob, threads: int) -> None:  # noqa: ARG001
    """Draw how similar the members of bags are to their anchors.

    Raises:
        BingoError: an input is missing or damaged, or does not belong to the others.
    """
    draw_similarity(job.listing, job.bags, job.output)
