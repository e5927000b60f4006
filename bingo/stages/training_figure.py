"""The training_figure stage."""

from bingo.report.training import draw_training
from bingo.study.report_jobs import TrainingFigureJob


def run(job: TrainingFigureJob, threads: int) -> None:  # noqa: ARG001
    """Draw training curves.

    Raises:
        BingoError: an input does not exist, is damaged, or does not belong to the others.
    """
    draw_training(job.panels, job.logs, job.output)
