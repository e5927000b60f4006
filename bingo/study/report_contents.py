"""What tables and figures show of a study: which networks, under which names."""

from bingo.study.bags import KnnBag
from bingo.study.method import Method
from bingo.study.schema import Study
from bingo.study.sections import Backbone, StrictModel
from bingo.study.teachers import ImportedTeacher


class TableRow(StrictModel):
    """A line of a table: which result files belong to it, and how it is named."""

    model: str
    method: str
    student: str
    teacher: str
    bags: str
    architecture: str
    """The student's, as publications name it; empty if they have no such student."""


class BagSizeSeries(StrictModel):
    """Students that differ in nothing but the size of their bags."""

    label: str
    sizes: dict[str, int]
    """Of each student, neighbours per bag."""


def table_rows(study: Study, name: str) -> list[TableRow]:
    """The lines of a table: all teachers and students, or the students it names and what teaches them."""
    table = study.tables[name]
    shown = table.students
    students = list(study.students) if shown is None else shown
    named = set(study.teachers) if shown is None else {study.teacher_of(student) for student in students}
    rows = [
        TableRow(
            model=name,
            method="imported" if isinstance(entry, ImportedTeacher) else entry.method,
            student="",
            teacher=name,
            bags="",
            architecture="",
        )
        for name, entry in study.teachers.items()
        if name in named and table.teachers
    ]
    for name in students:
        entry = study.students[name]
        origin = {"teacher": study.teacher_of(name) or "", "bags": study.bags_of(name) or ""}
        rows.append(
            TableRow(model=name, method=entry.method, student=name, architecture=_published(study, name), **origin)
        )
    return rows


def _published(study: Study, student: str) -> str:
    """Return the architecture under which publications have numbers of such a student, empty if they have none."""
    entry, bag = study.students[student], study.bags.get(study.bags_of(student) or "")
    is_published = entry.backbone.width == 1 and entry.backbone.stem == "imagenet"
    is_published &= entry.whole_loss() and (bag is None or isinstance(bag, KnnBag))
    return entry.backbone.architecture if is_published else ""


def model_seeds(study: Study, model: str) -> list[int]:
    """The seeds for which results of a teacher or student exist."""
    teacher = study.teachers.get(model)
    if teacher is None:
        return study.seeds
    return [0 if isinstance(teacher, ImportedTeacher) else teacher.own_seed()]


def bag_size_series(study: Study) -> list[BagSizeSeries]:
    """Return the students that differ in nothing but the size of their bags, where there are several sizes."""
    series: dict[str, BagSizeSeries] = {}
    for name, entry in study.students.items():
        bag = study.bags.get(study.bags_of(name) or "")
        if isinstance(bag, KnnBag):
            same = entry.model_dump_json(exclude={"bags", "teacher"}) + bag.model_dump_json(exclude={"size"})
            label = f"{entry.loss_name()}, {architecture_label(entry.backbone)} from {bag.teacher}"
            sizes = series[same].sizes if same in series else {}
            series[same] = BagSizeSeries(label=label, sizes={**sizes, name: bag.size})
    several = [found for found in series.values() if len(set(found.sizes.values())) > 1]
    labels = [found.label for found in several]
    # What else differs is told by the name of the first student.
    return [
        found.model_copy(update={"label": f"{found.label}: {next(iter(found.sizes))}, ..."})
        if labels.count(found.label) > 1
        else found
        for found in several
    ]


def training_panels(study: Study) -> dict[str, str]:
    """Return of each network that the study trains what its loss is called."""
    trained: dict[str, Method] = {n: e for n, e in study.teachers.items() if not isinstance(e, ImportedTeacher)}
    return {name: entry.loss_name() for name, entry in {**trained, **study.students}.items()}


def architecture_label(backbone: Backbone) -> str:
    """Return what a backbone is called in print."""
    return backbone.architecture if backbone.width == 1 else f"{backbone.architecture}, width {backbone.width:g}"
