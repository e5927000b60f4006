"""The bag_size_figure stage."""

from bingo.report.bag_size import draw_bag_size
from bingo.study.report_jobs import BagSizeFigureJob


def run(job: BagSizeFigureJob, threads: int) -> None:  # noqa: ARG001
    """Draw accuracy against bag size.

    Raises:
        BingoError: an input does not exist, is damaged, or does not belong to the others.
    """
    draw_bag_size(job.series, job.evaluations, job.results, job.output)
