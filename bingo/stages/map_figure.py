"""The map_figure stage."""

import torch

from bingo.report.feature_map import draw_map
from bingo.study.report_jobs import MapFigureJob


def run(job: MapFigureJob, device: torch.device, workers: int) -> None:
    """Draw a network's features in two dimensions.

    Raises:
        BingoError: an input does not exist, is damaged, or does not belong to the others.
    """
    draw_map(job.model, job.preprocessing, job.listing, job.split, job.weights, job.output, device, workers)
