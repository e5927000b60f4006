"""The report: a page that needs nothing outside itself and shows what the files of a study hold."""

import base64
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from bingo.artifacts.tensors import write_tensors
from bingo.bags.bags import Bags, write_bags
from bingo.errors import BingoError
from bingo.report.page import write_report
from bingo.study.schema import parse_study

STUDY = {
    "study": "demo",
    "seeds": [0, 1],
    "data": {"source": "demo", "max_train": 96},
    "teachers": {"r50": {"method": "moco", "backbone": {"architecture": "resnet50"}, "temperature": 0.07}},
    "bags": {"knn-5": {"criterion": "knn", "teacher": "r50"}},
    "students": {"distilled": {"method": "bingo", "bags": "knn-5", "backbone": {"architecture": "resnet18"}}},
    "evaluations": ["knn-10"],
    "tables": {"demo": {"title": "Small students"}, "paper": {"title": "Beside the paper"}},
}
HEADER = "method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source\n"
TABLE = f"""{HEADER}\
moco,,r50,,knn-10,top1,70.2500,,1,,
bingo,distilled,r50,knn-5,knn-10,top1,66.0000,0.7071,2,,
bingo,missing,r50,knn-5,knn-10,top1,,,0,,
"""
PAPER = f"""{HEADER}\
supervised,resnet18,,,knn-10,top1,,,0,69.5000,Authors
bingo,distilled,r50,knn-5,knn-10,top1,66.0000,0.7071,2,61.4000,Authors
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>{}</text></svg>'
SIZES = {"bags": 1200, "smallest": 3, "largest": 41, "median": 8.5}
COSTS = """\
s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time
{}\t0:00:00\t{}\t-\t-\t-\t-\t-\t-\t-
"""
HOSTILE = """<script>alert('x')</script><img src=http://example.org/x.png onerror="y()"> & {{ 7 * 7 }}"""


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, and the text inside each kind of tag."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._open = [], [], []
        self.feed(html)
        self.close()
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append((self._open[-1], data.strip()))

    def of(self, tag):
        """Return the texts directly inside a kind of tag."""
        return [text for inside, text in self.text if inside == tag]

    def attributes(self, tag, key):
        return [attrs[key] for found, attrs in self.tags if found == tag and key in attrs]


def write_model(path, provenance, method="moco"):
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"settings": {}, "packages": {}, "stage": "student", **provenance}
    write_tensors(path, {"w": torch.ones(2)}, {"method": method, "provenance": whole})
    return path


def write_some_bags(path, **facts):
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {**SIZES, "criterion": "knn", "mean_similarity": 0.75, "purity": 0.5, "provenance": {}, **facts}
    known = {key: value for key, value in facts.items() if value is not None}
    arrays = {"bag_of": np.arange(2), "indptr": np.arange(3), "members": np.array([1, 0])}
    write_bags(path, Bags(**arrays, includes_anchor=False, attributes=known))
    return path


FIGURES = ["map-r50", "accuracy-demo", "purity-r50", "training", "map-distilled", "bag-size", "similarity-knn-5"]
SHEETS = ["worst", "more", "random", "best"]
"""Neither is in the order in which they are shown."""
TEACHER = {"stage": "teacher", "settings": {"teacher": {"lr": 0.06, "note": "a < b & c"}}}
HERE = {"device": "cpu", "hardware": "Some CPU @ 2.00GHz", "precision": "bfloat16", "packages": {"torch": "2.15.0"}}
THERE = {"device": "cuda", "hardware": "Some GPU", "packages": {"torch": "2.15.0", "numpy": "2.4.6"}}


@pytest.fixture
def inputs(tmp_path):
    """One of everything that a report shows: the arguments of `write_report` by name."""
    folder = tmp_path / "results" / "demo"
    for part in ("tables", "figures", "bags", "benchmarks"):
        (folder / part).mkdir(parents=True)
    files = {f"tables/{name}.{suffix}": "" for name in ("demo", "paper") for suffix in ("md", "tex")}
    files |= {"tables/demo.csv": TABLE, "tables/paper.csv": PAPER}
    files |= {f"figures/{name}.svg": SVG.format(name) for name in FIGURES}
    files |= {f"figures/{name}.png": "" for name in FIGURES}
    costs = {"r50": (3599.8, 2048), "a": (100.0, 512), "b": (3661.4, "NA")}
    files |= {f"benchmarks/{name}.tsv": COSTS.format(*values) for name, values in costs.items()}
    for name, text in files.items():
        (folder / name).write_text(text)
    for shade, page in enumerate(SHEETS):
        Image.new("L", (30, 20), 60 * shade).save(folder / f"bags/{page}.png")
    jobs = {"teacher": ["r50"], "student": ["a", "b", "missing"], "evaluation": ["gone"]}
    student = folder / "students/distilled"
    return {
        "tables": [folder / "tables/demo.csv", folder / "tables/paper.csv"],
        "figures": [folder / f"figures/{name}.svg" for name in FIGURES],
        "sheets": {f"knn-5/{page}": folder / f"bags/{page}.png" for page in SHEETS},
        "bags": [write_some_bags(folder / "bags/knn-5.h5")],
        "models": [
            write_model(folder / "teachers/r50.safetensors", {**TEACHER, **HERE}),
            *(write_model(student / f"seed-{seed}/backbone.safetensors", THERE, "bingo") for seed in (0, 1)),
        ],
        "benchmarks": {stage: [folder / f"benchmarks/{name}.tsv" for name in names] for stage, names in jobs.items()},
    }


@pytest.fixture
def output(tmp_path):
    return tmp_path / "results" / "demo" / "report.html"


@pytest.fixture
def report(inputs, output):
    """Write a report, all inputs in it but for those given, and return its HTML."""

    def write(study=None, left_out="", **instead):
        write_report(parse_study(study or STUDY, "s"), left_out, **{**inputs, **instead}, output=output)
        return output.read_text(encoding="utf-8")

    return write


NOTHING = {"tables": [], "figures": [], "sheets": {}, "bags": [], "models": [], "benchmarks": {}}


def test_the_page_needs_nothing_outside_itself(report):
    html = report()
    page = Page(html)
    loaded = [attrs[key] for tag, attrs in page.tags for key in ("src", "srcset", "data", "poster") if key in attrs]
    assert len(loaded) == 7 + 4
    assert all(source.startswith("data:") for source in loaded)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not [key for tag, attrs in page.tags if tag == "script" for key in attrs]
    style, script = page.of("style")[0], page.of("script")[0]
    for word in ("url(", "@import", "http", "//cdn", "fetch(", "XMLHttpRequest", "import("):
        assert word not in style
        assert word not in script.replace("// Without", "")


def test_every_link_is_an_anchor_of_the_page_or_a_file_beside_it(inputs, output):
    for path in (output, output.parents[1] / "elsewhere" / "page.html"):
        write_report(parse_study(STUDY, "s"), "", **inputs, output=path)
        page = Page(path.read_text())
        anchors = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
        links = page.attributes("a", "href")
        for link in links:
            if link.startswith("#"):
                assert link[1:] in anchors
            else:
                assert not urlsplit(link).scheme
                assert not link.startswith("/")
                assert (path.parent / link).is_file()
        files = {(path.parent / link).resolve() for link in links if not link.startswith("#")}
        names = [f"tables/{name}.{suffix}" for name in ("demo", "paper") for suffix in ("csv", "md", "tex")]
        names += ["figures/bag-size.svg", "figures/bag-size.png", "bags/knn-5.h5", "teachers/r50.safetensors"]
        assert files >= {(output.parent / name).resolve() for name in names}


def pictures(page, kind):
    """Return the content of the page's pictures of a MIME type."""
    parts = [source.partition(",") for source in page.attributes("img", "src")]
    return [base64.b64decode(content, validate=True) for head, _, content in parts if head == f"data:{kind};base64"]


def test_figures_are_the_files_themselves_grouped_by_kind(report, inputs):
    shown = pictures(Page(report()), "image/svg+xml")
    order = ["accuracy-demo", "bag-size", "training", "purity-r50", "similarity-knn-5", "map-r50", "map-distilled"]
    assert shown == [SVG.format(name).encode() for name in order]
    assert set(shown) == {path.read_bytes() for path in inputs["figures"]}


def test_sheets_are_shown_page_by_page(report):
    page = Page(report())
    shades = []
    for content in pictures(page, "image/webp"):
        with Image.open(io.BytesIO(content)) as sheet:
            assert sheet.size == (30, 20)
            shades.append(np.asarray(sheet.convert("L")).mean())
    # `random`, `more`, `best`, `worst` had these grey levels.
    assert shades == pytest.approx([120, 60, 180, 0], abs=3)
    assert len([text for text in page.of("figcaption") if "knn-5: " in text]) == 4


def test_the_page_holds_the_numbers_of_the_tables(report):
    page = Page(report())
    assert page.of("th")[:6] == ["method", "student", "teacher", "bags", "knn-10 top1", "seeds"]
    cells = ["moco", "r50", "70.25", "1"]  # empty cells hold no text
    cells += ["bingo", "distilled", "r50", "knn-5", "66.00 ± 0.71", "2", "bingo", "missing", "r50", "knn-5", "0"]
    cells += ["supervised", "resnet18", "knn-10", "top1", "69.5"]
    cells += ["bingo", "distilled", "r50", "knn-5", "knn-10", "top1", "61.4", "66.00 ± 0.71", "2", "+4.60"]
    assert page.of("td")[: len(cells)] == cells
    assert {"Small students", "Beside the paper"} <= set(page.of("h3"))


@pytest.mark.parametrize(
    ("facts", "shown", "hidden"),
    [
        ({}, ["knn", "1,200", "3", "41", "8.5", "0.750", "0.500"], ["recall"]),
        (
            {"purity": None, "mean_similarity": None, "criterion": "random"},
            ["random", "1,200", "8.5"],
            ["similarity", "purity", "another class", "recall"],
        ),
        ({"recall": 0.98765, "recall_sample": 1000}, ["recall 0.988", "1,000"], []),
    ],
    ids=["neighbours", "random", "index"],
)
def test_the_page_says_how_good_the_bags_are(report, tmp_path, facts, shown, hidden):
    page = Page(report(bags=[write_some_bags(tmp_path / "bags.h5", **facts)]))
    (text,) = [" ".join(text.split()) for text in page.of("p") if "1,200" in text]
    assert [part for part in shown if part not in text] == []
    assert [part for part in hidden if part in text] == []


def rows_of_costs(html):
    (table,) = [part for part in html.split("<table") if "longest job" in part]
    body = table.split("<tbody>")[1].split("</tbody>")[0]
    return [[cell.split("</td>")[0] for cell in row.split("<td>")[1:]] for row in body.split("</tr>")[:-1]]


def test_the_page_says_what_each_stage_has_cost(report, inputs):
    # 100 + 3661.4 s; 2048 MB are twice 1024. Of one student nothing is noted, of the evaluation nothing at all.
    teacher, student, evaluation = rows_of_costs(report())
    assert teacher == ["teacher", "1", "1:00:00", "1:00:00", "2.00 GiB"]
    assert (student[0], student[1][0], student[2:]) == ("student", "2", ["1:02:41", "1:01:01", "0.50 GiB"])
    assert (evaluation[0], evaluation[1][0], evaluation[2:]) == ("evaluation", "0", ["", "", ""])
    assert "1 " in student[1][2:]
    assert "1 " in evaluation[1][2:]
    inputs["benchmarks"]["teacher"][0].write_text(COSTS.format(1.0, "NA"))
    assert rows_of_costs(report())[0] == ["teacher", "1", "0:00:01", "0:00:01", ""]


def test_the_page_says_where_it_was_run_and_with_which_software(report, tmp_path):
    page = Page(report())
    assert "Some CPU @ 2.00GHz, cpu, bfloat16; Some GPU, cuda" in page.of("p")
    assert "torch 2.15.0, numpy 2.4.6" in page.of("p")
    versions = ("2.15.0", "2.14.0")
    models = [
        write_model(tmp_path / f"{version}.safetensors", {"packages": {"torch": version}}) for version in versions
    ]
    assert "torch 2.15.0, torch 2.14.0" in Page(report(models=models)).of("p")


def test_the_page_holds_the_study_file_without_its_defaults(report):
    shown = yaml.safe_load(Page(report()).of("pre")[0])
    assert shown == STUDY
    assert parse_study(shown, "report") == parse_study(STUDY, "study")
    whole = parse_study(STUDY, "study").model_dump(mode="json")
    assert yaml.safe_load(Page(report(study=whole)).of("pre")[0]) == STUDY


def test_the_page_says_what_was_run(report, inputs, output, tmp_path):
    page = Page(report())
    links = [str(path.relative_to(output.parent)) for path in inputs["models"]]
    assert [link for link in page.of("a") if link in links] == links
    shown = [tuple(re.findall(r"\w+", text)[:2]) for text in page.of("summary")]
    assert shown == [("teacher", "moco"), ("student", "bingo"), ("student", "bingo")]
    assert json.loads(page.of("pre")[1]) == {"teacher": {"lr": 0.06, "note": "a < b & c"}}
    imported = {"settings": {"format": None, "part": None}, "file": "x.pth", "format": "moco", "part": "encoder_q"}
    path = write_model(tmp_path / "given.safetensors", imported, "imported (moco)")
    # What the file turned out to be, in place of what was left open.
    found = json.loads(Page(report(models=[path])).of("pre")[1])
    assert found == {"format": "moco", "part": "encoder_q", "file": "x.pth"}


def test_the_page_says_what_was_left_out(report):
    why = "evaluations and tables, because the data have no labels."
    assert any(text.endswith(why) for text in Page(report(left_out=why, tables=[])).of("p"))


def test_names_are_text_whatever_they_hold(report, inputs, tmp_path):
    clean = Page(report())
    folder = tmp_path / "results" / "demo"
    for table in inputs["tables"]:
        table.write_text(table.read_text().replace("distilled", '"{}"'.format(HOSTILE.replace('"', '""'))))
    bags = write_some_bags(folder / "bags/<i>bags.h5", criterion=HOSTILE)
    sheets = {f"<i>bags/{key.partition('/')[2]}": path for key, path in inputs["sheets"].items()}
    run = {"stage": HOSTILE, "settings": {"</pre>": HOSTILE}, "hardware": HOSTILE, "packages": {"</p>": HOSTILE}}
    models = [write_model(folder / f"<b>{i}.safetensors", run, HOSTILE) for i in range(3)]
    figures = []
    for path in inputs["figures"]:
        hostile = path.with_name(path.name.replace("r50", '"><script>').replace("knn-5", "<i>"))
        path.rename(hostile)
        figures.append(hostile)
        hostile.with_suffix(".png").touch()
    benchmarks = {f"<td>{stage}": paths for stage, paths in inputs["benchmarks"].items()}
    study = json.loads(json.dumps(STUDY))
    study["data"] = {"source": "folder", "train": HOSTILE}
    for entry in study["tables"].values():
        entry["title"] = HOSTILE
    page = Page(
        report(study, HOSTILE, figures=figures, bags=[bags], sheets=sheets, models=models, benchmarks=benchmarks)
    )
    (said,) = [i for i, tag in enumerate(page.tags) if tag == ("p", {"class": "note"})][:1]  # what was left out
    assert [tag for i, (tag, _) in enumerate(page.tags) if i != said] == [tag for tag, _ in clean.tags]
    assert page.of("h3").count(HOSTILE) == 2
    assert any(text.endswith(HOSTILE) for text in page.of("p"))
    assert HOSTILE in page.of("td")
    assert yaml.safe_load(page.of("pre")[0])["data"]["train"] == HOSTILE
    assert json.loads(page.of("pre")[1]) == {"</pre>": HOSTILE}
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)


def test_equal_inputs_give_equal_pages(report):
    assert report() == report()


def test_an_empty_study_is_a_page_too(report):
    page = Page(report(**NOTHING))
    assert page.of("h1") == ["Study demo"]
    assert page.attributes("a", "href") == ["#runs"]
    assert yaml.safe_load(page.of("pre")[0]) == STUDY


def first(inputs, kind):
    return next(iter(inputs[kind].values())) if kind == "sheets" else inputs[kind][0]


@pytest.mark.parametrize("kind", ["tables", "figures", "sheets", "bags", "models"])
@pytest.mark.parametrize("kept", [None, 0.0, 0.5])
def test_missing_and_damaged_inputs_are_refused_by_name(report, inputs, output, kind, kept):
    path = first(inputs, kind)
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        # A table that ends with a line is a table.
        path.write_bytes(content[: int(kept * len(content))] + (b'"' if kind == "tables" else b""))
    with pytest.raises(BingoError, match=f"^{path}: "):
        report()
    assert not output.exists()


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("figures", "accuracy.pdf", SVG),
        ("figures", "somewhat.svg", SVG),
        ("sheets", "sheet.png", SVG),
        ("tables", "other.csv", TABLE),  # the study has no such table
    ],
)
def test_files_of_another_kind_are_refused_by_name(report, inputs, tmp_path, kind, name, content):
    path = tmp_path / name
    path.write_text(content)
    instead = {**inputs["sheets"], "knn-5/random": path} if kind == "sheets" else [path]
    with pytest.raises(BingoError, match=f"^{path}: "):
        report(**{kind: instead})
