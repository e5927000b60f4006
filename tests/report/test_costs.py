"""What stages have cost, from Snakemake's benchmark files; all sums are worked out by hand."""

import io
import math

import pytest
from snakemake.benchmark import BenchmarkRecord, print_benchmark_tsv

from bingo.errors import BingoError
from bingo.report.costs import StageCost, stage_costs

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
UNKNOWN = ["-"] * 8


@pytest.fixture
def noted(tmp_path):
    """Write the files of some jobs, a line each, and return their paths."""

    def write(*jobs):
        paths = []
        for number, (seconds, memory) in enumerate(jobs):
            path = tmp_path / f"{number}-{len(list(tmp_path.iterdir()))}.tsv"
            cells = [str(seconds), "0:00:00", str(memory), *UNKNOWN[1:]]
            path.write_text(f"{HEADER}\n" + "\t".join(cells) + "\n")
            paths.append(path)
        return paths

    return write


def test_times_are_summed_and_the_longest_and_the_largest_job_are_found(noted):
    # 3661.4 + 59.6 + 1.25 = 3722.25 s: an hour, two minutes and 2.25 seconds. 1536 MB are one and a half times 1024.
    jobs = noted((3661.4, 512.0), (59.6, 1536.0), (1.25, 100.5))
    assert stage_costs({"student": jobs}) == [StageCost("student", 3, 0, "1:02:02", "1:01:01", 1.5)]


@pytest.mark.parametrize(
    ("seconds", "clock"),
    [(0.2, "0:00:00"), (59.4, "0:00:59"), (59.7, "0:01:00"), (3599.8, "1:00:00"), (360_000, "100:00:00")],
)
def test_a_time_is_hours_minutes_and_whole_seconds(noted, seconds, clock):
    (cost,) = stage_costs({"student": noted((seconds, 1))})
    assert (cost.total, cost.longest) == (clock, clock)


@pytest.mark.parametrize("unknown", ["-", "NA", ""])
def test_memory_that_snakemake_did_not_catch_is_unknown_and_hides_no_other(noted, unknown):
    (cost,) = stage_costs({"bags": noted((0.5, unknown))})
    assert math.isnan(cost.memory)
    (cost,) = stage_costs({"bags": noted((0.5, unknown), (2.0, 2048.0), (0.1, unknown))})
    assert (cost.jobs, cost.memory) == (3, 2.0)


def test_jobs_of_which_nothing_is_noted_are_counted(noted, tmp_path):
    missing = [tmp_path / f"missing-{i}.tsv" for i in range(3)]
    some, none = stage_costs({"student": [*noted((10, 1024)), *missing[:2]], "teacher": missing[2:]})
    assert some == StageCost("student", 1, 2, "0:00:10", "0:00:10", 1.0)
    assert (none.stage, none.jobs, none.missing, none.total) == ("teacher", 0, 1, "0:00:00")
    assert math.isnan(none.memory)


def test_the_last_line_of_a_job_that_was_repeated_counts(tmp_path):
    path = tmp_path / "job.tsv"
    lines = [HEADER, *("\t".join([seconds, "0:00:00", "1024", *UNKNOWN[1:]]) for seconds in ("100.0", "7.0"))]
    path.write_text("\n".join(lines) + "\n")
    (cost,) = stage_costs({"bags": [path]})
    assert (cost.jobs, cost.total) == (1, "0:00:07")


@pytest.mark.parametrize("sampled", [True, False])
def test_what_snakemake_itself_writes_is_read(tmp_path, sampled):
    record = BenchmarkRecord(running_time=75.4, max_rss=3072.0, max_vms=9000.0, cpu_usage=80.0, cpu_time=70.0)
    record.data_collected = sampled  # not, of a job that ended before the first look at it
    text = io.StringIO()
    print_benchmark_tsv([record], text, extended_fmt=False)
    path = tmp_path / "job.tsv"
    path.write_text(text.getvalue())
    assert text.getvalue().startswith(HEADER)
    (cost,) = stage_costs({"teacher": [path]})
    assert (cost.total, cost.longest) == ("0:01:15", "0:01:15")
    assert cost.memory == 3.0 if sampled else math.isnan(cost.memory)


DAMAGED = [b"", b"\xff\xfe", b"\x00", b"seconds\tmax_rss\n1.0\t2.0\n", f"{HEADER}\n".encode()]
DAMAGED += [f"{HEADER}\n{seconds}\t0:00:01\t1024\n".encode() for seconds in ("", "-", "NA", "x", "inf", "-5.0")]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "job.tsv"
    path.write_bytes(content)
    with pytest.raises(BingoError, match=f"^{path}: "):
        stage_costs({"teacher": [path]})
