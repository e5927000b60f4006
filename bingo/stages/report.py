"""The report stage: write a study's results as one page."""

from bingo.report.page import write_report
from bingo.study.report_jobs import ReportJob


def run(job: ReportJob, threads: int) -> None:  # noqa: ARG001
    """Write a study's report as one HTML page.

    Raises:
        BingoError: an input is damaged.
    """
    write_report(
        job.study,
        job.left_out,
        job.table,
        job.figure,
        job.sheet,
        job.bags,
        job.model,
        job.benchmark,
        job.output,
    )
