"""The table stage: result files as a tidy CSV, one row a number."""

import statistics
from typing import Any

import pandas as pd

from bingo.artifacts.files import atomic_write_checked
from bingo.report.table import COLUMNS, Network, Published, gather_results, read_published
from bingo.study.protocols import headline_metric, published_name
from bingo.study.report_contents import TableRow
from bingo.study.report_jobs import TableJob


def run(job: TableJob, threads: int) -> None:  # noqa: ARG001
    """Gather result files into a tidy CSV, one row a number.

    `mean` and `std` (of the sample; empty for one seed) are in percent over `seeds` result files. A number that no
    file holds is an empty cell. `published` and `source` come from the file of published numbers; numbers of
    networks that are not in this study get rows of their own.

    Raises:
        BingoError: a file cannot be read, or a result belongs to no row of the table.
    """
    values = gather_results(job.results, {row.model for row in job.rows}, job.evaluations, "table")
    numbers = [] if job.published is None else read_published(job.published)
    rows = []
    for row in job.rows:
        for protocol in job.evaluations:
            known = {
                number.metric: number
                for number in numbers
                if number.network() == _network(row) and number.protocol == published_name(protocol)
            }
            for metric in dict.fromkeys([*(values[row.model, protocol] or [headline_metric(protocol)]), *known]):
                found = values[row.model, protocol].get(metric, [])
                number = known.get(metric)
                rows.append(
                    {
                        **row.model_dump(exclude={"model", "architecture"}),
                        "protocol": protocol,
                        "metric": metric,
                        "mean": statistics.fmean(found) if found else None,
                        "std": statistics.stdev(found) if len(found) > 1 else None,
                        "seeds": len(found),
                        "published": number and number.published,
                        "source": number and number.source,
                    }
                )
    frame = pd.DataFrame([*_published_alone(job, numbers), *rows], columns=COLUMNS)
    with atomic_write_checked(job.output) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.4f")


def _network(row: TableRow) -> Network:
    """Return by what a publication would know a row's network."""
    return (row.method if row.student else "", row.architecture, row.teacher)


def _published_alone(job: TableJob, numbers: list[Published]) -> list[dict[str, Any]]:
    """Return the rows of published numbers of networks that the table has not; teachers' only if it shows teachers."""
    own = {_network(row) for row in job.rows}
    teachers = any(not row.student for row in job.rows)
    asked = {published_name(protocol) for protocol in job.evaluations}
    return [
        {**vars(number), "bags": "", "seeds": 0}
        for number in numbers
        if number.protocol in asked and number.network() not in own and (number.student or teachers)
    ]
