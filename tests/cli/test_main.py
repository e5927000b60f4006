import json
import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
import torch
from torchvision.io import write_png
from typer import rich_utils

from bingo.artifacts.provenance import digest_json
from bingo.artifacts.tensors import write_tensors
from bingo.cli import doctor
from bingo.cli.doctor import Finding
from bingo.cli.main import main
from bingo.models.backbone import build_backbone
from bingo.study import jobs, report_jobs
from bingo.study.schema import parse_study
from bingo.study.sections import Backbone
from bingo.study.stages import JOBS

COMMANDS = ["new", "summary", "doctor", "inspect", "export", "stage"]


def settings(kind, **keys):
    return json.dumps({"version": kind.STAGE_VERSION, **keys})


TABLE = settings(report_jobs.TableJob, rows=[], evaluations=[])
TEXT = settings(report_jobs.TableTextJob, title="A title")
MOCO = {"method": "moco", "backbone": {"architecture": "resnet10"}}
VIEWS = {"size": 28, "resize": 28}
TARGETS = settings(
    jobs.TargetsJob,
    preprocessing={"size": 28},
    recipe="small",
    precision="auto",
    layer="projection",
    number=0,
    views=2,
)
STUDY = parse_study(
    {
        "study": "s",
        "data": {"source": "demo"},
        "teachers": {"t": {"checkpoint": "x.pt"}},
        "tables": {"t": {"title": "T"}, "missing": {"title": "Missing"}},
    },
    "s",
)
IMPORTED = settings(jobs.ImportJob, format=None, part=None, architecture=None)
MEASURED = {"preprocessing": VIEWS, "model": "m", "protocol": "knn-10", "target": "", "seed": 0}
EVALUATION = settings(jobs.EvaluationJob, **MEASURED)
DETECTION = settings(
    jobs.DetectionJob, **{**MEASURED, "preprocessing": {"size": 28}, "protocol": "mask-rcnn", "target": "coco"}
)
BOXES = (
    "detection --images IMAGES --annotations MISSING --val-images IMAGES --val-annotations MISSING --weights MISSING"
)
ACCURACY = settings(report_jobs.AccuracyFigureJob, architectures={})
SIZES = settings(
    report_jobs.BagSizeFigureJob, series=[{"label": "s", "sizes": {"a": 1, "b": 2}}], evaluations=["knn-10"]
)
CURVES = settings(report_jobs.TrainingFigureJob, panels={"a": "moco"})
MAP = settings(report_jobs.MapFigureJob, preprocessing=VIEWS, model="m")
REPORT = settings(report_jobs.ReportJob, study=STUDY.model_dump(mode="json"), left_out="")
DEMO = settings(jobs.DataJob, split="train", data={"source": "demo", "max_train": 20})

# Command lines of stages that end by a user's fault: arguments, --settings, and what the one line must say.
FAULTS = {
    "no JSON": ("table --output OUTPUT", "{", "--settings: no JSON"),
    "unknown key": (
        "table --output OUTPUT",
        settings(report_jobs.TableJob, rowz=[]),
        "unknown key 'rowz'; did you mean 'rows'?",
    ),
    "another version": ("table --output OUTPUT", TABLE.replace("2", "3"), "are no settings of table, version 2"),
    "wrong type": (
        "table --output OUTPUT",
        settings(report_jobs.TableJob, rows=1, evaluations=[]),
        "--settings: rows: Input should be",
    ),
    "missing key": (
        "table_text --table MISSING --markdown OUTPUT --latex OUTPUT",
        settings(report_jobs.TableTextJob),
        "--settings: title: Field",
    ),
    "no settings file": ("table --output OUTPUT", "@MISSING", "--settings: MISSING cannot be read"),
    "binary settings file": ("table --output OUTPUT", "@JUNK", "--settings: JUNK cannot be read"),
    "data": (
        "data --key transfer.flowers --output OUTPUT",
        settings(jobs.DataJob, split="train", data={"source": "folder", "train": "MISSING"}),
        "transfer.flowers.train: there is no folder MISSING",
    ),
    "validation data": (
        "data --key data --output OUTPUT",
        settings(jobs.DataJob, split="val", data={"source": "folder", "train": "MISSING", "val": "MISSING"}),
        "validation images need --train-listing",
    ),
    "pack": (
        "pack --listing MISSING --output OUTPUT",
        settings(jobs.PackJob, split="train", pack={}),
        "MISSING: no such file",
    ),
    "teacher": (
        "teacher --name t --listing MISSING --output OUTPUT --training-log OUTPUT",
        settings(jobs.TeacherJob, preprocessing={"size": 28}, teacher=MOCO),
        "MISSING: no such file",
    ),
    "imported teacher": (
        "imported_teacher --checkpoint MISSING --output OUTPUT",
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
        settings(jobs.EmbeddingsJob, preprocessing=VIEWS),
        "DAMAGED: truncated or damaged",
    ),
    "bags": (
        "bags --listing JUNK --teacher MISSING --embeddings MISSING --output OUTPUT",
        settings(jobs.BagsJob, bags={"criterion": "knn", "teacher": "t"}),
        "JUNK: truncated or damaged",
    ),
    "sheets": ("sheets --listing MISSING --bags MISSING --pages best=OUTPUT", None, "MISSING: no such file"),
    "page": (
        "sheets --listing MISSING --bags MISSING --pages random=OUTPUT --pages bset=OUTPUT",
        None,
        "--pages: Input should be 'random', 'more', 'best' or 'worst'",
    ),
    "page without a file": (
        "sheets --listing MISSING --bags MISSING --pages best",
        None,
        "--pages: is NAME=FILE, found best",
    ),
    "student": (
        "student --name s --listing DAMAGED --output OUTPUT",
        settings(jobs.StudentJob, preprocessing={"size": 28}, student=MOCO, seed=0),
        "DAMAGED: truncated or damaged",
    ),
    "evaluation": (
        "evaluation --listing MISSING --val-listing MISSING --weights MISSING --output OUTPUT",
        EVALUATION,
        "MISSING: no such file",
    ),
    "protocol": (
        "evaluation --listing MISSING --val-listing MISSING --weights MISSING --output OUTPUT",
        EVALUATION.replace("knn-10", "knn-100"),
        "no protocol 'knn-100'; did you mean 'knn-10'?",
    ),
    "detection": (f"{BOXES} --output OUTPUT", DETECTION, "MISSING: "),
    "detection protocol": (
        f"{BOXES} --output OUTPUT",
        DETECTION.replace("mask-rcnn", "mask-rcn"),
        "no protocol 'mask-rcn'; did you mean 'mask-rcnn'?",
    ),
    "table": ("table --output OUTPUT --results JUNK", TABLE, "JUNK: no result file"),
    "published": (
        "table --published MISSING --output OUTPUT",
        TABLE,
        "MISSING: cannot be read as published numbers",
    ),
    "text": ("table_text --table MISSING --markdown OUTPUT --latex OUTPUT", TEXT, "MISSING: cannot be read"),
    "accuracy figure": ("accuracy_figure --table JUNK --output OUTPUT", ACCURACY, "JUNK: no table"),
    "bag size figure": ("bag_size_figure --output OUTPUT --results JUNK", SIZES, "JUNK: no result file"),
    "training figure": ("training_figure --output OUTPUT --logs a=MISSING", CURVES, "MISSING: cannot be read"),
    "log without a name": (
        "training_figure --output OUTPUT --logs MISSING",
        CURVES,
        "--logs: is NAME=FILE, found MISSING",
    ),
    "two logs of a name": ("training_figure --output OUTPUT --logs a=x --logs a=y", CURVES, "--logs: a occurs twice"),
    "purity figure": (
        "purity_figure --listing MISSING --embeddings JUNK --teacher JUNK --output OUTPUT",
        None,
        "MISSING: no such file",
    ),
    "similarity figure": (
        "similarity_figure --listing DAMAGED --bags JUNK --output OUTPUT",
        None,
        "DAMAGED: truncated or damaged",
    ),
    "map figure": (
        "map_figure --listing JUNK --split val --weights MISSING --output OUTPUT",
        MAP,
        "JUNK: truncated or damaged",
    ),
    "settings of a figure": (
        "map_figure --listing JUNK --split val --weights MISSING --output OUTPUT",
        MAP.replace("model", "modl"),
        "unknown key 'modl'; did you mean 'model'?",
    ),
    "report": ("report --output OUTPUT --table MISSING", REPORT, "MISSING: cannot be read"),
    "settings of a report": (
        "report --output OUTPUT",
        settings(report_jobs.ReportJob, study={"study": "s"}, left_out=""),
        "--settings: study.data: Field required",
    ),
    "sheet without a name": ("report --output OUTPUT --sheet MISSING", REPORT, "--sheet: is NAME=FILE, found MISSING"),
    "cost without a stage": ("report --output OUTPUT --benchmark =x", REPORT, "--benchmark: is NAME=FILE, found =x"),
    "cost": ("report --output OUTPUT --benchmark teacher=JUNK", REPORT, "JUNK: no benchmark of Snakemake's"),
}
# The same of what users call.
PLAIN_FAULTS = {
    "inspect": ("inspect MISSING", "MISSING: "),
    "inspect what is none": ("inspect JUNK", "JUNK: "),
    "export": ("export MISSING --to detectron2 --output WEIGHTS", "MISSING: no such file"),
    "export to a wrong name": (
        "export JUNK --to detectron2 --output OUTPUT",
        "OUTPUT: readers of this format expect names that end in .pkl",
    ),
    "export to a name of another format": (
        "export MISSING --to torchvision --output WEIGHTS",
        "WEIGHTS: readers of this format expect names that end in .pth",
    ),
    "export to onnx": ("export MISSING --to onnx --output NETWORK", "MISSING: no such file"),
    "export to timm": ("export MISSING --to timm --output TENSORS", "MISSING: no such file"),
    "export to safetensors": ("export JUNK --to safetensors --output TENSORS", "JUNK: damaged or no safetensors file"),
    "export to a folder": ("export MISSING --to huggingface --output OUTPUT", "MISSING: no such file"),
    "resize of weights alone": (
        "export MISSING --to timm --output TENSORS --resize 256",
        "--resize: a file for timm holds weights alone and cannot say it; leave it out",
    ),
    "export of what is none": ("export JUNK --to detectron2 --output WEIGHTS", "JUNK: damaged or no safetensors file"),
    "launch": ("launch --nodes 2 teacher", "--nodes: 2 nodes are found only inside a SLURM job"),
    "launch of a stage in several processes": (
        "launch --gpus 0 --processes 2 bags --output x.h5",
        "launch: bags computes in one process",
    ),
    "summary": ("summary MISSING", "MISSING: no such folder"),
    "new": ("new birds --data MISSING --output OUTPUT", "--data: there is no folder MISSING"),
    "new file that exists": ("new birds --data IMAGES --output JUNK", "JUNK: exists already"),
    "new study of a wrong name": ("new Birds --data IMAGES --output OUTPUT", "STUDY: Birds is no name"),
    "new study of an empty folder": ("new birds --data IMAGES --output OUTPUT", "--data: the folder IMAGES is empty"),
    "new study with a teacher that is none": (
        "new birds --data IMAGES --output OUTPUT --teacher MISSING",
        "MISSING: ",
    ),
}


@pytest.fixture
def bingo(monkeypatch, capsys):
    """Run the command line in this process: (exit code, stdout, stderr)."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the command sets it; so it is put back

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


@pytest.fixture
def files(tmp_path):
    """Paths by the names that stand for them in `FAULTS`."""
    damaged, junk = tmp_path / "damaged.h5", tmp_path / "junk"
    with h5py.File(damaged, "w") as file:
        file.attrs["kind"] = "listing"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    junk.write_bytes(b"\xff\xfe\x00")
    (tmp_path / "images").mkdir()
    return {
        "MISSING": tmp_path / "missing.h5",
        "DAMAGED": damaged,
        "JUNK": junk,
        "IMAGES": tmp_path / "images",
        "OUTPUT": tmp_path / "output.svg",
        "WEIGHTS": tmp_path / "weights.pkl",
        "NETWORK": tmp_path / "network.onnx",
        "TENSORS": tmp_path / "weights.safetensors",
    }


@pytest.fixture
def fill(files):
    """Put paths in place of the names that stand for them."""
    return lambda text: re.sub("[A-Z]{4,}", lambda word: str(files.get(word[0], word[0])), text)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_users_fault_is_one_line_on_stderr_and_in_the_log(bingo, files, fill, fault, tmp_path):
    command, given, expected = FAULTS[fault]
    arguments = ["stage", *(fill(word) for word in command.split())]
    if given is not None:
        arguments += ["--settings", fill(given)]
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


@pytest.mark.parametrize("fault", PLAIN_FAULTS)
def test_a_users_fault_is_one_line_of_commands_without_a_log_too(bingo, files, fill, fault):
    command, expected = PLAIN_FAULTS[fault]
    code, out, err = bingo(*(fill(word) for word in command.split()))
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"bingo: error: {fill(expected)}")
    assert not files["OUTPUT"].exists()
    assert not files["WEIGHTS"].exists()


def test_there_is_a_fault_of_every_command():
    assert {command.split()[0] for command, *_ in FAULTS.values()} == JOBS.keys() - {"export"}
    assert {command.split()[0] for command, _ in PLAIN_FAULTS.values()} == {*COMMANDS, "launch"} - {"stage", "doctor"}


def test_a_users_fault_ends_the_process_with_one_line_and_code_1(tmp_path):
    command = [sys.executable, "-m", "bingo", "stage", "table", "--settings", TABLE, "--output", "x.csv"]
    done = subprocess.run(
        [*command, "--results", "missing.json"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("bingo: error: missing.json: ")


def test_the_process_ends_after_what_is_registered_for_its_end_and_with_all_that_it_printed():
    code = (
        "import atexit, runpy, sys, bingo.cli.main\n"
        "bingo.cli.main.main = lambda: (atexit.register(print, 'registered'), sys.exit({code}))\n"
        "runpy.run_module('bingo', run_name='__main__')"
    )
    for number in (0, 3):
        command = [sys.executable, "-c", code.format(code=number)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (number, "registered\n", "")


def test_a_bug_keeps_its_traceback(bingo, monkeypatch, tmp_path):
    def run(*_):
        return 1 / 0

    monkeypatch.setattr("bingo.stages.table.run", run)
    with pytest.raises(ZeroDivisionError) as caught:
        bingo("stage", "table", "--settings", TABLE, "--output", tmp_path / "x.csv")
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
    # Commands to copy are not broken.
    assert re.search(r"\n +snakemake --cores all --configfile birds.yaml", out)


def test_help_of_stages_lists_them_in_the_order_of_their_use(bingo):
    _, out, _ = bingo("stage", "--help")
    assert listed(out) == [name for name in JOBS if name != "export"]


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        ("bash", "bingo summ", "summary"),
        ("zsh", "bingo new x --scale ", "trial"),
        ("fish", "bingo stage ", "accuracy_figure"),
    ],
)
def test_shells_complete_commands_and_choices(shell, typed, expected):
    environment = {
        **os.environ,
        "_BINGO_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "import sys; sys.argv = ['bingo']; from bingo.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert expected in re.findall(r"[\w-]+", done.stdout)


def test_a_machine_on_which_a_study_would_fail_is_diagnosed_with_exit_code_1(bingo, monkeypatch):
    findings = [Finding("ok", "all is well"), Finding("fail", "no disk", "buy one")]
    monkeypatch.setattr(doctor, "examine", lambda study: findings[: 1 if study is None else 2])
    assert bingo("doctor") == (0, "ok    all is well\n", "")
    code, out, err = bingo("doctor", "s.yaml")
    assert (code, out) == (1, "ok    all is well\nfail  no disk\n      -> buy one\n")
    assert err.startswith("bingo: error: a study would fail here")


def loaded(code, *names):
    """Return which modules of such names a process has loaded that ran this."""
    code = f"{code}\nimport sys; print(*({set(names)} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()[-1].split()


HEAVY = ("torch", "faiss", "matplotlib", "pandas", "numpy", "h5py")


@pytest.mark.parametrize("words", [["--help"], ["stage", "--help"], ["stage", "student", "--help"]], ids=" ".join)
def test_help_loads_neither_torch_nor_anything_else_that_is_slow_to_load(words):
    code = f"""
import runpy, sys
sys.argv = ["bingo", *{words}]
try:
    runpy.run_module("bingo", run_name="__main__")
except SystemExit:
    pass
"""
    assert loaded(code, *HEAVY) == []


def test_what_snakemake_reads_at_its_start_loads_no_torch():
    assert loaded("import bingo.study.stages, bingo.study.plan, bingo.views.recipes", *HEAVY) == []


def test_listings_bags_tables_figures_of_numbers_and_the_report_are_made_without_loading_torch():
    names = [
        "data", "bags", "table", "table_text", "report",
        "accuracy_figure", "bag_size_figure", "training_figure", "purity_figure", "similarity_figure",
    ]  # fmt: skip
    assert loaded("\n".join(f"import bingo.stages.{name}" for name in names), "torch") == []


def test_progress_goes_to_the_log_or_else_to_stderr(bingo, tmp_path):
    log = tmp_path / "logs" / "data.log"
    given = ["stage", "data", "--settings", DEMO, "--key", "data"]
    assert bingo(*given, "--output", tmp_path / "a.h5", "--log", log) == (0, "", "")
    logged = [line.split(" ", 2)[2] for line in log.read_text().splitlines()]
    assert logged == ["train: 20 images, 0 unreadable left out"]
    code, out, err = bingo(*given, "--output", tmp_path / "b.h5")
    assert (code, out) == (0, "")
    assert err.splitlines() == [f"bingo: {line}" for line in logged]
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_a_log_takes_file_names_of_any_bytes(bingo, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in (b"a.png", b"latin-\xe9.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/" + name)).write_text("no image")
    write_png(torch.zeros(3, 8, 8, dtype=torch.uint8), str(tmp_path / "photos" / "a.png"))
    folder = {"source": "folder", "train": f"{tmp_path}/photos", "on_bad_image": "skip"}
    given = ["--settings", settings(jobs.DataJob, split="train", data=folder), "--key", "data"]
    log = tmp_path / "data.log"
    assert bingo("stage", "data", *given, "--output", tmp_path / "a.h5", "--log", log)[0] == 0
    assert "latin-\\udce9.jpg cannot be read" in log.read_text()


def test_a_summary_of_a_folder_that_is_not_there_is_refused(bingo, tmp_path):
    code, out, err = bingo("summary", tmp_path / "nowhere")
    assert (code, out) == (1, "")
    assert err.startswith(f"bingo: error: {tmp_path / 'nowhere'}: no such folder")


def test_settings_may_stand_in_a_file(bingo, tmp_path):
    (tmp_path / "settings.json").write_text(TABLE)
    results = []
    for name, given in (("a.csv", TABLE), ("b.csv", f"@{tmp_path / 'settings.json'}")):
        assert bingo("stage", "table", "--settings", given, "--output", tmp_path / name)[0] == 0
        results.append((tmp_path / name).read_text())
    assert results[0] == results[1]


@pytest.mark.parametrize("files", [[], ["a.h5"], ["b.h5", "a.h5"]])
def test_a_student_is_given_its_stored_outputs_in_the_order_of_the_flags(files, bingo, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("bingo.stages.student.run", lambda job, *_: given.append(job))
    flags = [word for file in files for word in ("--targets", file)]
    keys = settings(jobs.StudentJob, preprocessing={"size": 28}, student=MOCO, seed=0)
    arguments = ["--settings", keys, "--name", "s", "--listing", "l.h5", "--output", tmp_path]
    assert bingo("stage", "student", *arguments, *flags) == (0, "", "")
    (job,) = given
    assert (job.name, job.listing, job.teacher, job.bags) == ("s", Path("l.h5"), None, None)
    assert job.targets == [Path(file) for file in files]


def test_a_table_becomes_texts_figures_and_a_report(bingo, tmp_path):
    row = {"model": "m", "method": "moco", "student": "m", "teacher": "", "bags": "", "architecture": "resnet18"}
    result, published = tmp_path / "result.json", tmp_path / "published.csv"
    said = {"model": "m", "protocol": "knn-10", "seed": 0, "metrics": {"top1": 61.25}}
    result.write_text(json.dumps({**said, "digest": digest_json(said)}))
    published.write_text("method,student,teacher,protocol,metric,published,source\nmoco,resnet18,,knn-10,top1,60.5,A\n")
    table, svg, benchmark = tmp_path / "tables" / "t.csv", tmp_path / "accuracy.svg", tmp_path / "cost.tsv"
    benchmark.write_text("s\tmax_rss\n3661.2\t1024\n")
    markdown, latex, page = (tmp_path / "tables" / "t.md", tmp_path / "t.tex", tmp_path / "report.html")
    given = settings(report_jobs.TableJob, rows=[row], evaluations=["knn-10"])
    given_figure = settings(report_jobs.AccuracyFigureJob, architectures={"m": "resnet18"})
    png = tmp_path / "f.png"
    costs = ["--benchmark", f"student={benchmark}", "--benchmark", f"student={tmp_path / 'missing.tsv'}"]
    for arguments in (
        ["table", "--settings", given, "--published", published, "--output", table, "--results", result],
        ["table_text", "--settings", TEXT, "--table", table, "--markdown", markdown, "--latex", latex],
        ["accuracy_figure", "--settings", given_figure, "--table", table, "--output", svg, "--output", png],
        ["report", "--settings", REPORT, "--table", table, "--figure", svg, *costs, "--output", page],
    ):
        assert bingo("stage", *arguments) == (0, "", "")
    assert all(number in path.read_text() for path in (table, markdown, latex, page) for number in ("61.25", "60.5"))
    assert "1:01:01" in page.read_text()
    assert "(of 1 more nothing is noted)" in page.read_text()
    assert png.exists()
    code, out, _ = bingo("summary", tmp_path)
    assert code == 0
    assert out.startswith(markdown.read_text())
    assert out.split()[-2:] == [str(page), str(tmp_path / "tables")]


def test_an_exported_backbone_is_a_file_of_detectron2(bingo, tmp_path):
    model, output = tmp_path / "model.safetensors", tmp_path / "export" / "model.pkl"
    spec = Backbone(architecture="resnet10", width=1 / 16)
    write_tensors(model, build_backbone(spec).state_dict(), {"backbone": spec.model_dump(), "method": "moco"})
    assert bingo("export", model, "--to", "detectron2", "--output", output)[:2] == (0, "")
    content = pickle.loads(output.read_bytes())
    assert (content["__author__"], content["matching_heuristics"]) == ("bingo", True)
    assert "stem.conv1.weight" in content["model"]
