"""The accuracy_figure stage."""

from bingo.report.accuracy import draw_accuracy
from bingo.study.report_jobs import AccuracyFigureJob


def run(job: AccuracyFigureJob, threads: int) -> None:  # noqa: ARG001
    """Draw the accuracies of a table.

    Raises:
        BingoError: an input does not exist, is damaged, or does not belong to the others.
    """
    draw_accuracy(job.architectures, job.table, job.output)
