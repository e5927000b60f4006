"""Networks that tables and figures show, and their labels."""

from bingo.study.bags import KnnBag
from bingo.study.method import Method
from bingo.study.schema import Study
from bingo.study.sections import Backbone, StrictModel
from bingo.study.teachers import ImportedTeacher


class TableRow(StrictModel):
    """A row of a table: the model whose results it shows, and its labels."""

    model: str
    method: str
    student: str
    teacher: str
    bags: str
    architecture: str
    """Architecture of the student in published numbers; empty if none are comparable."""


class BagSizeSeries(StrictModel):
    """Students that differ only in the size of their bags."""

    label: str
    sizes: dict[str, int]
    """Neighbours per bag of each student."""


def table_rows(study: Study, name: str) -> list[TableRow]:
    """Return the rows of a table: all teachers and students, or the table's students and their teachers."""
    table = study.tables[name]
    students = list(study.students) if table.students is None else table.students
    teachers = set(study.teachers) if table.students is None else {study.teacher_of(student) for student in students}
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
        if name in teachers and table.teachers
    ]
    for name in students:
        entry = study.students[name]
        origin = {"teacher": study.teacher_of(name) or "", "bags": study.bags_of(name) or ""}
        rows.append(
            TableRow(model=name, method=entry.method, student=name, architecture=_published(study, name), **origin)
        )
    return rows


def _published(study: Study, student: str) -> str:
    """Return a student's architecture if published numbers are comparable with it, else an empty string."""
    entry, bag = study.students[student], study.bags.get(study.bags_of(student) or "")
    is_published = entry.backbone.width == 1 and entry.backbone.stem == "imagenet"
    is_published &= entry.whole_loss() and (bag is None or isinstance(bag, KnnBag))
    return entry.backbone.architecture if is_published else ""


def model_seeds(study: Study, model: str) -> list[int]:
    """Return the seeds of a teacher or student."""
    teacher = study.teachers.get(model)
    if teacher is None:
        return study.seeds
    return [0 if isinstance(teacher, ImportedTeacher) else teacher.own_seed()]


def bag_size_series(study: Study) -> list[BagSizeSeries]:
    """Return groups of students that differ only in the size of their bags; each has at least two sizes."""
    series: dict[str, BagSizeSeries] = {}
    for name, entry in study.students.items():
        bag = study.bags.get(study.bags_of(name) or "")
        if isinstance(bag, KnnBag):
            key = entry.model_dump_json(exclude={"bags", "teacher"}) + bag.model_dump_json(exclude={"size"})
            label = f"{entry.loss_name()}, {architecture_label(entry.backbone)} from {bag.teacher}"
            sizes = series[key].sizes if key in series else {}
            series[key] = BagSizeSeries(label=label, sizes={**sizes, name: bag.size})
    groups = [group for group in series.values() if len(set(group.sizes.values())) > 1]
    labels = [group.label for group in groups]
    # The name of the first student distinguishes groups with the same label.
    return [
        group.model_copy(update={"label": f"{group.label}: {next(iter(group.sizes))}, ..."})
        if labels.count(group.label) > 1
        else group
        for group in groups
    ]


def training_panels(study: Study) -> dict[str, str]:
    """Return the loss name of each network that the study trains."""
    trained: dict[str, Method] = {n: e for n, e in study.teachers.items() if not isinstance(e, ImportedTeacher)}
    return {name: entry.loss_name() for name, entry in {**trained, **study.students}.items()}


def architecture_label(backbone: Backbone) -> str:
    """Return the label of a backbone in tables and figures."""
    return backbone.architecture if backbone.width == 1 else f"{backbone.architecture}, width {backbone.width:g}"
