import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
from torchvision.io import write_png

from bingo import cli
from bingo.config import parse_study
from bingo.jobs import teacher_settings
from bingo.student import stage as student_stage
from bingo.tables import stage as tables_stage

SUBCOMMANDS = {
    "data",
    "teacher",
    "imported-teacher",
    "inspect",
    "embeddings",
    "bags",
    "sheet",
    "targets",
    "student",
    "evaluation",
    "table",
    "text",
    "accuracy-figure",
    "training-figure",
    "report",
    "summary",
}


def settings(**keys):
    return json.dumps({"version": 1, **keys})


TABLE = settings(rows=[], evaluations=[])
TEXT = settings(title="A title")
MOCO = {"method": "moco", "backbone": {"architecture": "resnet10"}}
VIEWS = {"size": 28, "resize": 28}
TARGETS = settings(
    preprocessing={"size": 28},
    recipe="small",
    precision="auto",
    layer="projection",
    number=0,
    views=2,
)
# Where the file lies is told by the flag.
IMPORTED = teacher_settings(
    parse_study({"study": "s", "data": {"source": "demo"}, "teachers": {"t": {"checkpoint": "x.pt"}}}, "s"), "t"
)
EVALUATION = settings(preprocessing=VIEWS, model="m", protocol="knn-10", seed=0)
DEMO = settings(split="train", data={"source": "demo", "max_train": 20})

# Command lines that end by a user's fault: arguments, --settings, and what the one line must say.
FAULTS = {
    "no JSON": ("table --output OUTPUT", "{", "--settings: Invalid JSON"),
    "unknown key": ("table --output OUTPUT", settings(rowz=[]), "unknown key 'rowz'; did you mean 'rows'?"),
    "wrong type": ("table --output OUTPUT", settings(rows=1, evaluations=[]), "--settings: rows: Input should be"),
    "missing key": ("text --table MISSING --markdown OUTPUT --latex OUTPUT", settings(), "--settings: title: Field"),
    "no settings file": ("table --output OUTPUT", "@MISSING", "--settings: MISSING cannot be read"),
    "binary settings file": ("table --output OUTPUT", "@JUNK", "--settings: JUNK cannot be read"),
    "data": ("data --output OUTPUT", settings(split="train", data={"source": "folder", "train": "MISSING"}), "MISSING"),
    "teacher": (
        "teacher --name t --listing MISSING --output OUTPUT --training-log OUTPUT",
        settings(preprocessing={"size": 28}, teacher=MOCO),
        "MISSING: no such file",
    ),
    "imported teacher": (
        "imported-teacher --checkpoint MISSING --output OUTPUT",
        IMPORTED,
        "MISSING: ",
    ),
    "targets": (
        "targets --listing DAMAGED --teacher MISSING --output OUTPUT",
        TARGETS,
        "DAMAGED: truncated or damaged",
    ),
    "targets without views": (
        "targets --listing MISSING --teacher MISSING --output OUTPUT",
        TARGETS.replace('"views"', '"vews"'),
        "unknown key 'vews'; did you mean 'views'?",
    ),
    "embeddings": (
        "embeddings --listing DAMAGED --teacher MISSING --output OUTPUT",
        settings(preprocessing=VIEWS),
        "DAMAGED: truncated or damaged",
    ),
    "bags": (
        "bags --listing JUNK --teacher MISSING --embeddings MISSING --output OUTPUT",
        settings(bags={"criterion": "knn", "teacher": "t"}),
        "JUNK: truncated or damaged",
    ),
    "sheet": ("sheet --listing MISSING --bags MISSING --output OUTPUT", None, "MISSING: no such file"),
    "student": (
        "student --name s --listing DAMAGED --output OUTPUT",
        settings(preprocessing={"size": 28}, student=MOCO, seed=0),
        "DAMAGED: truncated or damaged",
    ),
    "evaluation": (
        "evaluation --listing MISSING --val-listing MISSING --model MISSING --output OUTPUT",
        EVALUATION,
        "MISSING: no such file",
    ),
    "protocol": (
        "evaluation --listing MISSING --val-listing MISSING --model MISSING --output OUTPUT",
        EVALUATION.replace("knn-10", "knn-100"),
        "no protocol 'knn-100'; did you mean 'knn-10'?",
    ),
    "table": ("table --output OUTPUT JUNK", TABLE, "JUNK: missing or no result file"),
    "text": ("text --table MISSING --markdown OUTPUT --latex OUTPUT", TEXT, "MISSING: missing or no table"),
    "accuracy figure": ("accuracy-figure --table JUNK --output OUTPUT", None, "JUNK: missing or no table"),
    "training figure": ("training-figure --output OUTPUT a=MISSING", None, "MISSING: missing or no training log"),
    "log without a name": ("training-figure --output OUTPUT MISSING", None, "each log is NAME=CSV"),
    "two logs of a name": ("training-figure --output OUTPUT a=x a=y", None, "each log is NAME=CSV"),
    "report": (
        "report --output OUTPUT --table MISSING",
        settings(study="s", left_out=""),
        "MISSING: missing or no table",
    ),
}


@pytest.fixture
def bingo(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # the command sets it; so it is put back

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["bingo", *map(str, arguments)])
        monkeypatch.setattr(root, "handlers", [])  # pytest's would keep the command from installing its own
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            for handler in root.handlers:
                handler.close()
        return code, *capsys.readouterr()

    yield run
    root.setLevel(level)


@pytest.fixture
def files(tmp_path):
    """Paths by the names that stand for them in `FAULTS`."""
    damaged, junk = tmp_path / "damaged.h5", tmp_path / "junk"
    with h5py.File(damaged, "w") as file:
        file.attrs["kind"] = "listing"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    junk.write_bytes(b"\xff\xfe\x00")
    return {"MISSING": tmp_path / "missing.h5", "DAMAGED": damaged, "JUNK": junk, "OUTPUT": tmp_path / "output.svg"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_users_fault_is_one_line_on_stderr_and_in_the_log(bingo, files, fault, tmp_path):
    def fill(text):
        return re.sub("[A-Z]{4,}", lambda word: str(files.get(word[0], word[0])), text)

    command, given, expected = FAULTS[fault]
    arguments = [fill(word) for word in command.split()]
    if given is not None:
        arguments[1:1] = ["--settings", fill(given)]
    log = tmp_path / "logs" / "run.log"
    code, out, err = bingo(*arguments, "--log", log)
    assert code == 1
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("bingo: error: ")
    assert fill(expected) in line
    (logged,) = log.read_text().splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d " + re.escape(line.removeprefix("bingo: ")), logged)
    assert not files["OUTPUT"].exists()


def test_a_users_fault_ends_the_process_with_one_line_and_code_1(tmp_path):
    command = [sys.executable, "-m", "bingo", "table", "--settings", TABLE, "--output", "x.csv", "missing.json"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bingo: error: missing.json: ")


def test_a_bug_keeps_its_traceback(bingo, monkeypatch, tmp_path):
    def make_table(*_):
        return 1 / 0

    monkeypatch.setattr(tables_stage, "make_table", make_table)
    with pytest.raises(ZeroDivisionError) as caught:
        bingo("table", "--settings", TABLE, "--output", tmp_path / "x.csv")
    assert caught.traceback[-1].name == "make_table"


def test_help_lists_every_subcommand_without_loading_torch():
    code = (
        "import runpy, sys; sys.argv = ['bingo', '--help']\n"
        "try: runpy.run_module('bingo', run_name='__main__')\n"
        "finally: print(sorted({'torch', 'faiss', 'matplotlib', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert {name for name in SUBCOMMANDS if any(re.match(rf"\W*{name}\s+[A-Z]", line) for line in lines)} == SUBCOMMANDS


def test_tables_figures_and_the_report_are_made_without_loading_torch():
    code = "import sys, bingo.tables.stage, bingo.figures.stage, bingo.report.stage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_rules_call_every_stage_by_its_name():
    rules = Path(__file__).parents[1] / "workflow" / "rules"
    text = "".join(path.read_text() for path in rules.glob("*.smk"))
    assert set(re.findall(r"python -m bingo ([a-z-]+)", text)) == SUBCOMMANDS - {"summary", "inspect"}


def test_progress_goes_to_the_log_or_else_to_stderr(bingo, tmp_path):
    log = tmp_path / "logs" / "data.log"
    assert bingo("data", "--settings", DEMO, "--output", tmp_path / "a.h5", "--log", log) == (0, "", "")
    logged = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert logged == ["train: 20 images, 0 unreadable left out"]
    code, out, err = bingo("data", "--settings", DEMO, "--output", tmp_path / "b.h5")
    assert (code, out) == (0, "")
    assert err.splitlines() == [f"bingo: {line}" for line in logged]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_log_takes_file_names_of_any_bytes(bingo, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in (b"a.png", b"latin-\xe9.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name)).write_text("no image")
    write_png(torch.zeros(3, 8, 8, dtype=torch.uint8), str(tmp_path / "photos" / "a.png"))
    given = settings(split="train", data={"source": "folder", "train": f"{tmp_path}/photos", "on_bad_image": "skip"})
    log = tmp_path / "data.log"
    assert bingo("data", "--settings", given, "--output", tmp_path / "a.h5", "--log", log)[0] == 0
    assert "latin-\\udce9.jpg cannot be read" in log.read_text()


def test_a_summary_of_a_folder_that_is_not_there_is_refused(bingo, tmp_path):
    code, out, err = bingo("summary", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert err.startswith(f"bingo: error: {tmp_path / 'nowhere'}: no such folder")


def test_settings_may_stand_in_a_file(bingo, tmp_path):
    (tmp_path / "settings.json").write_text(TABLE)
    results = []
    for name, given in (("a.csv", TABLE), ("b.csv", f"@{tmp_path / 'settings.json'}")):
        assert bingo("table", "--settings", given, "--output", tmp_path / name)[0] == 0
        results.append((tmp_path / name).read_text())
    assert results[0] == results[1]


@pytest.mark.parametrize("files", [[], ["a.h5"], ["b.h5", "a.h5"]])
def test_a_student_is_given_its_stored_outputs_in_the_order_of_the_flags(files, bingo, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(student_stage, "train_student", lambda *arguments: given.append(arguments))
    flags = [word for file in files for word in ("--targets", file)]
    keys = settings(preprocessing={"size": 28}, student=MOCO, seed=0)
    arguments = ["--settings", keys, "--name", "s", "--listing", "l.h5", "--output", tmp_path]
    assert bingo("student", *arguments, *flags) == (0, "", "")
    ((_, name, listing, teacher, targets, bags, *_),) = given
    assert (name, listing, teacher, targets, bags) == ("s", Path("l.h5"), None, [Path(file) for file in files], None)


def test_a_table_becomes_texts_figures_and_a_report(bingo, tmp_path):
    row = {"model": "m", "method": "moco", "student": "m", "teacher": "", "bags": ""}
    result = tmp_path / "result.json"
    result.write_text(json.dumps({"model": "m", "protocol": "knn-10", "seed": 0, "metrics": {"top1": 61.25}}))
    table, svg = tmp_path / "tables" / "t.csv", tmp_path / "f.svg"
    given = settings(rows=[row], evaluations=["knn-10"])
    markdown, latex, page = (tmp_path / "tables" / "t.md", tmp_path / "t.tex", tmp_path / "report.html")
    for arguments in (
        ["table", "--settings", given, "--output", table, result],
        ["text", "--settings", TEXT, "--table", table, "--markdown", markdown, "--latex", latex],
        ["accuracy-figure", "--table", table, "--output", svg, "--output", tmp_path / "f.png"],
        ["report", "--settings", settings(study="s", left_out=""), "--table", table, "--figure", svg, "--output", page],
    ):
        assert bingo(*arguments) == (0, "", "")
    assert all("61.25" in path.read_text() for path in (table, markdown, latex, page))
    assert (tmp_path / "f.png").exists()
    code, out, _ = bingo("summary", tmp_path)
    assert code == 0
    assert out.startswith(markdown.read_text())
    assert out.split()[-2:] == [str(page), str(tmp_path / "tables")]
