"""The similarity_figure stage."""

from bingo.report.neighbours import draw_similarity
from bingo.study.report_jobs import SimilarityFigureJob


def run(job: SimilarityFigureJob, threads: int) -> None:  # noqa: ARG001
    """Draw the similarity of bag members to their anchors.

    Raises:
        BingoError: an input does not exist, is damaged, or does not belong to the others.
    """
    draw_similarity(job.listing, job.bags, job.output)
