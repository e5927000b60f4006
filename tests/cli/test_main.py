"""The command line as users meet it: faults, help, logs, completion, and what is imported."""

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png
from typer import rich_utils

from bingo.cli import doctor
from bingo.cli.doctor import Finding
from bingo.cli.main import main
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from bingo.study.report_jobs import BagSizeFigureJob, TableJob
from bingo.study.stages import JOBS

from .conftest import as_command

COMMANDS = ["new", "summary", "doctor", "inspect", "export", "stage"]
MISSING = Path("missing")
TABLE = TableJob(rows=[], evaluations=[], results=[MISSING], output=Path("table.csv"))
SIZES = BagSizeFigureJob(series=[], evaluations=["knn-10"], results=[MISSING], output=[Path("x.svg")])
NEEDING = {"table": TABLE, "bag_size_figure": SIZES}  # those of the study read nothing that must be there


@pytest.fixture
def bingo(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    root = logging.getLogger()
    level = root.level
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):  # commands set them; so they are put back
        monkeypatch.setenv(name, "1" if name == "OMP_NUM_THREADS" else "")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bingo", *map(str, arguments)])
        monkeypatch.setattr(root, "handlers", [])  # pytest's would keep the command from installing its own
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            for handler in root.handlers:
                handler.close()
        return code, *capsys.readouterr()

    yield run
    root.setLevel(level)


def run_job(bingo, job, *words):
    return bingo("stage", *as_command(job), *words)


@pytest.mark.parametrize("stage", [name for name in JOBS if name not in ("export", "sheets")])
def test_a_missing_input_of_a_stage_is_one_line_on_stderr_and_in_the_log(stage, bingo, jobs, tmp_path):
    job = NEEDING.get(stage, jobs[stage])
    code, out, err = run_job(bingo, job, "--log", tmp_path / "logs" / "run.log")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    inputs = [path for value in job.inputs.values() for path in ([value] if isinstance(value, str) else value)]
    assert line.startswith(tuple(f"bingo: error: {path}" for path in (*inputs, "data.train", "flowers.train",
                                                                      "transfer.flowers.train")))  # fmt: skip
    (logged,) = (tmp_path / "logs" / "run.log").read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d " + re.escape(line.removeprefix("bingo: ")), logged)
    assert not [path for path in Path().rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("inspect missing", "missing"),
        ("inspect junk", "junk"),
        ("export missing --to detectron2 --output x.pkl", "missing"),
        ("export junk --to safetensors --output x.safetensors", "junk"),
        ("export junk --to detectron2 --output x.svg", "x.svg"),
        ("export missing --to timm --output x.safetensors --resize 256", "--resize"),
        ("launch --nodes 2 teacher", "--nodes"),
        ("launch --gpus 0 --processes 2 bags --output x.h5", "launch: bags"),
        ("summary missing", "missing"),
        ("new birds --data missing --output x", "--data"),
        ("new birds --data images --output x", "--data"),
        ("new birds --data images --output junk", "junk"),
        ("new Birds --data images --output x", "STUDY: Birds"),
        ("new birds --data images --output x --teacher missing", "missing"),
        ("stage sheets --listing missing --bags missing --pages best=x.png", "missing"),
        ("stage sheets --listing missing --bags missing --pages best", "--pages"),
        ("stage table --output x --settings {", "--settings"),
    ],
)
def test_a_users_fault_is_one_line(command, named, bingo):
    Path("images").mkdir()
    Path("junk").write_bytes(b"\xff\xfe\x00")
    code, out, err = bingo(*shlex.split(command))
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"bingo: error: {named}")
    assert {path.name for path in Path().iterdir()} == {"images", "junk"}


def test_a_users_fault_ends_the_process_with_one_line_and_code_1(tmp_path):
    command = [sys.executable, "-m", "bingo", "stage", *as_command(TABLE)]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bingo: error: missing: ")


def test_a_bug_keeps_its_traceback(bingo, monkeypatch):
    def run(*_):
        return 1 / 0

    monkeypatch.setattr("bingo.stages.table.run", run)
    with pytest.raises(ZeroDivisionError) as caught:
        run_job(bingo, TABLE)
    assert caught.traceback[-1].name == "run"


def listed(text):
    """Return the commands that a help page lists."""
    return re.findall(r"^│ ([a-z_]+) +[A-Z]", text, re.MULTILINE)


def test_help_lists_users_commands_alone_on_one_screen(bingo, monkeypatch):
    monkeypatch.setattr(rich_utils, "MAX_WIDTH", 80)
    code, out, _ = bingo("--help")
    assert code == 0
    assert listed(out) == COMMANDS
    assert max(len(line) for line in out.splitlines()) <= 80
    assert len(out.splitlines()) <= 40
    assert re.search(r"\n +snakemake --cores all --configfile birds.yaml", out)  # to copy: not broken


def test_help_of_stages_lists_them_in_the_order_of_their_use(bingo):
    assert listed(bingo("stage", "--help")[1]) == [name for name in JOBS if name != "export"]


def test_options_after_a_launched_stage_are_the_stages(bingo):
    assert bingo("launch", "--gpus", "0", "map_figure", "--help") == bingo("stage", "map_figure", "--help")


def python(code, **environment):
    """Return the words that a new process prints."""
    environment = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return re.findall(r"[\w-]+", done.stdout)


@pytest.mark.slow
def test_shells_complete_stages():
    typed = {"_TYPER_COMPLETE_ARGS": "bingo stage ", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    code = "import sys; sys.argv = ['bingo']; from bingo.cli.main import main; main()"
    assert "accuracy_figure" in python(code, _BINGO_COMPLETE="complete_fish", **typed)


HEAVY = ("torch", "faiss", "matplotlib", "pandas", "numpy", "h5py")
STAGES_WITHOUT_TORCH = "data bags table table_text report accuracy_figure bag_size_figure training_figure purity_figure"
HELP = """
import runpy, sys
sys.argv = ["bingo", "stage", "student", "--help"]
sys.stdout = None
try:
    runpy.run_module("bingo", run_name="__main__")
except SystemExit:
    sys.stdout = sys.__stdout__
"""


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        (HELP, HEAVY),
        ("import bingo.study.stages, bingo.study.plan, bingo.views.recipes", HEAVY),  # what Snakemake imports
        ("\n".join(f"import bingo.stages.{name}" for name in STAGES_WITHOUT_TORCH.split()), ["torch"]),
    ],
    ids=["help", "plan", "stages"],
)
def test_slow_packages_are_imported_only_where_they_are_needed(code, modules):
    assert python(f"{code}\nimport sys; print(*({set(modules)} & set(sys.modules)))") == []


def test_a_machine_on_which_a_study_would_fail_is_diagnosed_with_exit_code_1(bingo, monkeypatch):
    findings = [Finding("ok", "all is well"), Finding("fail", "no disk", "buy one")]
    monkeypatch.setattr(doctor, "examine", lambda study: findings[: 1 if study is None else 2])
    assert bingo("doctor") == (0, "ok    all is well\n", "")
    code, out, err = bingo("doctor", "s.yaml")
    assert (code, out) == (1, "ok    all is well\nfail  no disk\n      -> buy one\n")
    assert err.startswith("bingo: error: ")


def test_a_summary_prints_the_tables_and_the_paths_of_results(bingo):
    Path("s/tables").mkdir(parents=True)
    Path("s/tables/t.md").write_text("| a | 61.25 |")
    Path("s/report.html").touch()
    code, out, _ = bingo("summary", "s")
    assert (code, out.splitlines()) == (0, ["| a | 61.25 |", "s/report.html", "s/tables"])


def test_progress_goes_to_the_log_or_else_to_stderr(bingo, tmp_path):
    demo = DataJob(split="train", data=DemoData(source="demo", max_train=20), key="data", output=tmp_path / "a.h5")
    log = tmp_path / "logs" / "data.log"
    assert run_job(bingo, demo, "--log", log) == (0, "", "")
    (logged,) = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert "20 images" in logged
    assert run_job(bingo, demo) == (0, "", f"bingo: {logged}\n")


def test_a_log_takes_file_names_of_any_bytes(bingo, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Path(os.fsdecode(os.fsencode(photos) + b"/latin-\xe9.jpg")).write_text("no image")
    write_png(torch.zeros(3, 8, 8, dtype=torch.uint8), str(photos / "a.png"))
    data = FolderData(source="folder", train=str(photos), on_bad_image="skip")
    job = DataJob(split="train", data=data, key="data", output=tmp_path / "a.h5")
    log = tmp_path / "data.log"
    assert run_job(bingo, job, "--log", log)[0] == 0
    assert "latin-\\udce9.jpg" in log.read_text()
