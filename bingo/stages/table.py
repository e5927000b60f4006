"""The table stage: collect result files in a tidy CSV, one row per number."""

import statistics
from typing import Any

import pandas as pd

from bingo.artifacts.files import atomic_write_checked
from bingo.report.table import COLUMNS, Network, Published, gather_results, read_published
from bingo.study.protocols import headline_metric, published_name
from bingo.study.report_contents import TableRow
from bingo.study.report_jobs import TableJob


def run(job: TableJob, threads: int) -> None:  # noqa: ARG001
    """Collect result files in a tidy CSV, one row per number.

    `mean` and `std` (sample standard deviation; empty for one seed) are in percent, over `seeds` result files. Missing
    numbers are empty cells. `published` and `source` come from the file of published numbers. Published numbers of
    networks that are not in this study get additional rows.

    Raises:
        BingoError: a file cannot be read, or a result belongs to no row of the table.
    """
    values = gather_results(job.results, {row.model for row in job.rows}, job.evaluations, "table")
    numbers = [] if job.published is None else read_published(job.published)
    rows = []
    for row in job.rows:
        for protocol in job.evaluations:
            published = {
                number.metric: number
                for number in numbers
                if number.network() == _network(row) and number.protocol == published_name(protocol)
            }
            for metric in dict.fromkeys([*(values[row.model, protocol] or [headline_metric(protocol)]), *published]):
                measured = values[row.model, protocol].get(metric, [])
                number = published.get(metric)
                rows.append(
                    {
                        **row.model_dump(exclude={"model", "architecture"}),
                        "protocol": protocol,
                        "metric": metric,
                        "mean": statistics.fmean(measured) if measured else None,
                        "std": statistics.stdev(measured) if len(measured) > 1 else None,
                        "seeds": len(measured),
                        "published": number and number.published,
                        "source": number and number.source,
                    }
                )
    frame = pd.DataFrame([*_published_only(job, numbers), *rows], columns=COLUMNS)
    with atomic_write_checked(job.output) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.4f")


def _network(row: TableRow) -> Network:
    """Return the key that identifies a row's network among published numbers."""
    return (row.method if row.student else "", row.architecture, row.teacher)


def _published_only(job: TableJob, numbers: list[Published]) -> list[dict[str, Any]]:
    """Return rows for published networks that are not in the study; teachers only if the table shows teachers."""
    networks = {_network(row) for row in job.rows}
    teachers = any(not row.student for row in job.rows)
    protocols = {published_name(protocol) for protocol in job.evaluations}
    return [
        {**vars(number), "bags": "", "seeds": 0}
        for number in numbers
        if number.protocol in protocols and number.network() not in networks and (number.student or teachers)
    ]
