"""Result files of a small study, as the evaluation stage writes them, and what tables show of them."""

import json

from bingo.artifacts.provenance import digest_json
from bingo.study.report_contents import TableRow
from bingo.study.report_jobs import TableJob, TableTextJob
from tests.stage import run_stage


def row(model, method, student="", teacher="", bags="", architecture=""):
    return TableRow(model=model, method=method, student=student, teacher=teacher, bags=bags, architecture=architecture)


ROWS = [
    row("r50", "imported", teacher="r50"),
    row("alone", "moco", "alone", architecture="resnet18"),
    row("bingo", "bingo", "bingo", "r50", "knn-5", "resnet18"),
    row("official", "bingo", "official", "r50", "knn-5", "resnet18"),
]
EVALUATIONS = ["linear-moco", "knn-10"]

# Missing: teacher and `alone` by knn-10, one of three seeds of `bingo` by each, everything of `official` but one.
RESULTS = [
    ("r50", "linear-moco", 0, {"top1": 67.31, "top5": 88.02}),
    ("alone", "linear-moco", 0, {"top1": 52.0, "top5": 76.0}),
    ("alone", "linear-moco", 1, {"top1": 52.4, "top5": 77.0}),
    ("alone", "linear-moco", 2, {"top1": 52.8, "top5": 78.0}),
    ("bingo", "linear-moco", 0, {"top1": 61.3, "top5": 84.0}),
    ("bingo", "linear-moco", 2, {"top1": 61.9, "top5": 84.0}),
    ("bingo", "knn-10", 1, {"top1": 54.0}),
    ("bingo", "knn-10", 2, {"top1": 59.0}),
    ("official", "knn-10", 1, {"top1": 55.123456}),
]

PUBLISHED = """\
method,student,teacher,protocol,metric,published,source
moco,,r50,linear,top1,67.4,"Authors, 2022"
supervised,mobilenet_v3_large,,linear,top1,75.2,Others
moco,resnet18,,linear,top1,52.5,"Authors, 2022"
moco,resnet18,,linear,top5,77.0,"Authors, 2022"
moco,resnet18,,knn-10,top1,36.5,Others
bingo,resnet18,r50,linear,top1,61.4,"Authors, 2022"
bingo,resnet18,r50,linear,top5,84.3,"Authors, 2022"
bingo,resnet18,r50,semi-1,top1,42.8,"Authors, 2022"
bingo,resnet34,r50,linear,top1,63.5,"Authors, 2022"
"""


def write_results(folder, results):
    paths = []
    for model, protocol, seed, metrics in results:
        path = folder / model / f"seed-{seed}" / f"{protocol}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        result = {"facts": {}, "metrics": metrics, "model": model, "protocol": protocol, "provenance": {}, "seed": seed}
        path.write_text(json.dumps({**result, "digest": digest_json(result)}))
        paths.append(path)
    return paths


def make_table(results, published, output, rows=ROWS, evaluations=EVALUATIONS):
    run_stage(TableJob, rows=rows, evaluations=evaluations, results=results, published=published, output=output)


def make_text(title, table, markdown, latex):
    run_stage(TableTextJob, title=title, table=table, markdown=markdown, latex=latex)


def markdown_rows(markdown):
    """Return the cells of each line of a table: header, rule, then the body."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def latex_rows(latex):
    lines = [line.removesuffix(r" \\") for line in latex.splitlines() if line.endswith(r" \\")]
    return [[cell.strip() for cell in line.split(" & ")] for line in lines]
