import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from bingo.bags.bags import Bags, write_bags
from bingo.errors import BingoError
from bingo.jobs import ReportJob
from bingo.report.stage import write_report
from bingo.tensors import write_tensors

TABLE = """\
method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source
moco,,r50,,knn-10,top1,70.2500,,1,,
bingo,distilled,r50,knn-5,knn-10,top1,66.0000,0.7071,2,,
bingo,missing,r50,knn-5,knn-10,top1,,,0,,
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><text>bars</text></svg>'
SIZES = {"bags": 1200, "smallest": 3, "largest": 41, "median": 8.5}
SETTINGS = {"teacher": {"lr": 0.06, "note": "a < b & c"}}
HOSTILE = "<script>alert('x')</script><img src=http://example.org/x.png>"


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


@pytest.fixture
def inputs(tmp_path):
    """One of everything that a report shows: the arguments of `write_report` by name."""
    folder = tmp_path / "study"
    for part in ("tables", "figures", "bags", "teachers"):
        (folder / part).mkdir(parents=True)
    table, figure = folder / "tables" / "demo.csv", folder / "figures" / "demo.svg"
    table.write_text(TABLE)
    figure.write_text(SVG)
    sheet, bags = folder / "bags" / "knn-5.png", folder / "bags" / "knn-5.h5"
    Image.new("RGB", (3, 2), "red").save(sheet)
    arrays = {"bag_of": np.arange(2), "indptr": np.arange(3), "members": np.array([1, 0])}
    facts = {**SIZES, "criterion": "knn", "mean_similarity": 0.75, "purity": 0.5, "provenance": {}}
    write_bags(bags, Bags(**arrays, includes_anchor=False, attributes=facts))
    teacher = folder / "teachers" / "r50.safetensors"
    provenance = {"stage": "teacher", "settings": SETTINGS, "packages": {"torch": "2.15.0"}}
    write_tensors(teacher, {"w": torch.ones(2)}, {"method": "moco", "provenance": provenance})
    return {"tables": [table], "figures": [figure], "sheets": [sheet], "bags": [bags], "models": [teacher]}


@pytest.fixture
def report(inputs, tmp_path):
    """Write a report, all inputs in it but for those given, and return its HTML."""

    def write(study="demo", left_out="", **instead):
        output = tmp_path / "report.html"
        write_report(ReportJob(version=1, study=study, left_out=left_out), **{**inputs, **instead}, output=output)
        return output.read_text(encoding="utf-8")

    return write


def test_the_page_needs_nothing_outside_itself(report):
    page = Page(report())
    sources = [attrs[key] for _, attrs in page.tags for key in ("src", "href", "data", "srcset") if key in attrs]
    assert len(sources) >= 5
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert "@import" not in report()
    assert "url(" not in report()


def test_pictures_are_the_files_themselves(report, inputs):
    pictures = [attrs["src"] for tag, attrs in Page(report()).tags if tag == "img"]
    files = [("image/svg+xml", inputs["figures"][0]), ("image/png", inputs["sheets"][0])]
    for picture, (mime, path) in zip(pictures, files, strict=True):
        head, _, content = picture.partition(",")
        assert head == f"data:{mime};base64"
        assert base64.b64decode(content, validate=True) == path.read_bytes()


def test_every_link_of_the_page_leads_somewhere(report):
    for html in (report(), report(tables=[], sheets=[], bags=[])):
        tags = Page(html).tags
        targets = {attrs["id"] for _, attrs in tags if "id" in attrs}
        links = {attrs["href"].removeprefix("#") for tag, attrs in tags if tag == "a"}
        assert links
        assert links <= targets


def test_the_page_holds_the_numbers_of_the_tables(report):
    page = Page(report())
    assert page.of("th") == ["method", "student", "teacher", "bags", "knn-10 top1", "seeds"]
    cells = ["moco", "r50", "70.25", "1"]  # empty cells hold no text
    cells += ["bingo", "distilled", "r50", "knn-5", "66.00 ± 0.71", "2", "bingo", "missing", "r50", "knn-5", "0"]
    assert page.of("td") == cells


def test_the_page_says_how_good_the_bags_are(report):
    text = " ".join(" ".join(Page(report()).of("p")).split())
    assert "Criterion knn, 1,200 bags of 3 to 41 images (median 8.5), mean similarity 0.750, purity 0.500" in text


def test_the_page_says_what_was_run(report, inputs):
    page = Page(report())
    (summary,) = page.of("summary")
    assert summary.startswith(f"{inputs['models'][0]} (teacher, moco, ")
    (settings,) = page.of("pre")
    assert json.loads(settings) == SETTINGS
    assert "torch 2.15.0" in page.of("p")


def test_the_page_says_what_was_left_out(report):
    why = "evaluations and tables, because the data have no labels."
    page = Page(report(left_out=why, tables=[]))
    assert f"Left out of this study: {why}" in page.of("p")
    assert "Results" not in page.of("h2")
    assert not any("Left out" in text for _, text in Page(report()).text)


def test_names_are_text_whatever_they_hold(report, inputs, tmp_path):
    clean = Page(report(left_out="x"))
    table = tmp_path / "<b>table.csv"
    table.write_text(TABLE.replace("distilled", HOSTILE))
    bags, figure = tmp_path / "<i>bags.h5", tmp_path / '"><i>.svg'
    figure.write_text(SVG)
    facts = {**SIZES, "criterion": HOSTILE, "mean_similarity": 0.5, "provenance": {}}
    arrays = {"bag_of": np.arange(2), "indptr": np.arange(3), "members": np.array([1, 0])}
    write_bags(bags, Bags(**arrays, includes_anchor=False, attributes=facts))
    model = tmp_path / "<i>model.safetensors"
    provenance = {"stage": HOSTILE, "settings": {"</pre>": HOSTILE}, "packages": {"torch": HOSTILE}}
    write_tensors(model, {"w": torch.ones(2)}, {"method": HOSTILE, "provenance": provenance})
    html = report(HOSTILE, HOSTILE, tables=[table], figures=[figure], bags=[bags], models=[model])
    page = Page(html)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in clean.tags]
    assert page.of("h1") == [f"Study {HOSTILE}"]
    assert page.of("title") == [f"{HOSTILE}: BINGO study"]
    assert HOSTILE in page.of("td")
    assert json.loads(page.of("pre")[0]) == {"</pre>": HOSTILE}


def test_equal_inputs_give_equal_pages(report):
    assert report() == report()


def test_an_empty_study_is_a_page_too(report):
    page = Page(report(tables=[], figures=[], sheets=[], bags=[], models=[]))
    assert page.of("h1") == ["Study demo"]


@pytest.mark.parametrize("kind", ["tables", "figures", "sheets", "bags", "models"])
def test_missing_inputs_are_refused_by_name(report, inputs, tmp_path, kind):
    path = inputs[kind][0]
    path.unlink()
    with pytest.raises(BingoError) as caught:
        report()
    assert str(caught.value).startswith(f"{path}: ")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("kind", ["tables", "bags", "models"])
def test_damaged_inputs_are_refused_by_name(report, inputs, kind):
    path = inputs[kind][0]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(BingoError) as caught:
        report()
    assert str(caught.value).startswith(f"{path}: ")


def test_a_picture_of_another_format_is_refused(report, tmp_path):
    with pytest.raises(BingoError, match=r"x\.pdf: no \.svg or \.png"):
        report(figures=[tmp_path / "x.pdf"])
