"""From a study to the settings of each of its jobs, as canonical JSON. Imports no torch: rules ask for them."""

from typing import Literal

from bingo import bags, data, detection, embeddings, evaluation, figures, report, student, tables, targets, teacher
from bingo.config import CocoSet, FolderData, ImportedTeacher, KnnBag, Study, TrainedTeacher
from bingo.jobs import (
    NOT_LISTED,
    AccuracyFigureJob,
    BagSizeFigureJob,
    BagSizeSeries,
    BagsJob,
    DataJob,
    DetectionJob,
    EmbeddingsJob,
    EvaluationJob,
    ImportJob,
    MapFigureJob,
    PackJob,
    ReportJob,
    Row,
    StudentJob,
    TableJob,
    TargetsJob,
    TeacherJob,
    TextJob,
    TrainingFigureJob,
    settings,
)
from bingo.methods import Student
from bingo.methods.method import Layer
from bingo.sections import Backbone, Precision, RecipeName


def data_settings(study: Study, split: Literal["train", "val"]) -> str:
    """Settings of one split's listing."""
    job = DataJob(version=data.STAGE_VERSION, split=split, data=study.data)
    return settings(job, exclude=NOT_LISTED[split])


def pack_settings(study: Study, split: Literal["train", "val"]) -> str:
    """Settings of one split's pack, where the study asks for one."""
    assert isinstance(study.data, FolderData)
    assert study.data.pack is not None
    job = PackJob(version=data.PACK_VERSION, split=split, pack=study.data.pack)
    return settings(job, exclude={"pack": {"quality"}} if job.pack.shorter_side is None else None)


def transfer_data_settings(study: Study, target: str, split: Literal["train", "val"]) -> str:
    """Settings of the listing of one split of another set."""
    images = study.target(target)
    assert not isinstance(images, CocoSet)
    job = DataJob(version=data.STAGE_VERSION, split=split, data=images)
    return settings(job, exclude=NOT_LISTED[split])


def teacher_settings(study: Study, name: str) -> str:
    """Settings of one teacher."""
    entry = study.teachers[name]
    if isinstance(entry, ImportedTeacher):
        told = entry.model_dump(exclude={"checkpoint"})
        return settings(ImportJob(version=teacher.IMPORT_VERSION, **told))
    network_input = study.data.preprocessing.network_input()
    return settings(TeacherJob(version=teacher.STAGE_VERSION, preprocessing=network_input, teacher=entry))


def embeddings_settings(study: Study) -> str:
    """Settings of embeddings; the teacher itself is an input file."""
    return settings(EmbeddingsJob(version=embeddings.STAGE_VERSION, preprocessing=study.data.preprocessing))


def bags_settings(study: Study, name: str) -> str:
    """Settings of one entry of `bags`."""
    return settings(BagsJob(version=bags.STAGE_VERSION, bags=study.bags[name]))


def targets_settings(
    study: Study, recipe: RecipeName, precision: Precision, layer: Layer, number: int, views: int
) -> str:
    """Settings of a teacher's stored outputs; the teacher itself is an input file."""
    return settings(
        TargetsJob(
            version=targets.STAGE_VERSION,
            preprocessing=study.data.preprocessing.network_input(),
            recipe=recipe,
            precision=precision,
            layer=layer,
            number=number,
            views=views,
        )
    )


def student_settings(study: Study, name: str, seed: int) -> str:
    """Settings of one student with one seed; its teacher is an input file, so how it is named does not count."""
    job = StudentJob(
        version=student.STAGE_VERSION,
        preprocessing=study.data.preprocessing.network_input(),
        student=study.students[name],
        seed=seed,
    )
    return settings(job, exclude={"student": {"teacher"}})


def evaluation_settings(study: Study, model: str, name: str, seed: int) -> str:
    """Settings of one evaluation of one backbone."""
    target, protocol = study.split_evaluation(name)
    return settings(
        EvaluationJob(
            version=evaluation.STAGE_VERSION,
            preprocessing=study.data.preprocessing,
            model=model,
            protocol=protocol,
            target=target,
            seed=seed,
        )
    )


def detection_settings(study: Study, model: str, name: str, seed: int) -> str:
    """Settings of one detector on one backbone."""
    target, protocol = study.split_evaluation(name)
    job = DetectionJob(
        version=detection.STAGE_VERSION,
        preprocessing=study.data.preprocessing.network_input(),
        model=model,
        protocol=protocol,
        target=target,
        seed=seed,
    )
    return settings(job, exclude={"preprocessing": {"size", "decoder"}})


def table_rows(study: Study, name: str) -> list[Row]:
    """The lines of a table: all teachers and students, or the students it names and what teaches them."""
    table = study.tables[name]
    shown = table.students
    students = list(study.students) if shown is None else shown
    named = set(study.teachers) if shown is None else {study.teacher_of(student) for student in students}
    rows = [
        Row(model=name, method=_method(entry), student="", teacher=name, bags="", architecture="")
        for name, entry in study.teachers.items()
        if name in named and table.teachers
    ]
    for name in students:
        entry = study.students[name]
        origin = {"teacher": study.teacher_of(name) or "", "bags": study.bags_of(name) or ""}
        rows.append(Row(model=name, method=entry.method, student=name, architecture=_published(study, name), **origin))
    return rows


def _published(study: Study, student: str) -> str:
    """Return the architecture under which publications have numbers of such a student, empty if they have none."""
    entry, bag = study.students[student], study.bags.get(study.bags_of(student) or "")
    is_published = entry.backbone.width == 1 and entry.backbone.stem == "imagenet"
    is_published &= getattr(entry, "terms", None) is None and (bag is None or isinstance(bag, KnnBag))
    return entry.backbone.architecture if is_published else ""


def _method(teacher: TrainedTeacher | ImportedTeacher) -> str:
    return getattr(teacher, "method", "imported")


def table_settings(study: Study, name: str, evaluations: list[str]) -> str:
    """Settings of a table's numbers, of those evaluations that the data allow."""
    return settings(TableJob(version=tables.STAGE_VERSION, rows=table_rows(study, name), evaluations=evaluations))


def text_settings(study: Study, name: str) -> str:
    """Settings of a table's Markdown and LaTeX, its title among them."""
    return settings(TextJob(version=tables.STAGE_VERSION, title=study.tables[name].title))


def report_settings(study: Study, left_out: str) -> str:
    """Settings of the report, which shows the study; but who loads the images does not count."""
    job = ReportJob(version=report.STAGE_VERSION, study=study, left_out=left_out)
    return settings(job, exclude={"study": {"data": {"workers"}}})


def model_seeds(study: Study, model: str) -> list[int]:
    """The seeds for which results of a teacher or student exist."""
    return [getattr(study.teachers[model], "seed", 0)] if model in study.teachers else study.seeds


def accuracy_figure_settings(study: Study, table: str) -> str:
    """Settings of the figure of a table."""
    shown = (row.student for row in table_rows(study, table) if row.student)
    architectures = {name: _printed(study.students[name].backbone) for name in shown}
    return settings(AccuracyFigureJob(version=figures.STAGE_VERSION, architectures=architectures))


def bag_size_series(study: Study) -> list[BagSizeSeries]:
    """Return the students that differ in nothing but the size of their bags, where there are several sizes."""
    series: dict[str, BagSizeSeries] = {}
    for name, entry in study.students.items():
        bag = study.bags.get(study.bags_of(name) or "")
        if isinstance(bag, KnnBag):
            same = entry.model_dump_json(exclude={"bags", "teacher"}) + bag.model_dump_json(exclude={"size"})
            label = f"{_variant(entry)}, {_printed(entry.backbone)} from {bag.teacher}"
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


def bag_size_figure_settings(study: Study, evaluations: list[str]) -> str:
    """Settings of accuracy against bag size, by some evaluations."""
    return settings(
        BagSizeFigureJob(version=figures.STAGE_VERSION, series=bag_size_series(study), evaluations=evaluations)
    )


def training_figure_settings(study: Study) -> str:
    """Settings of the training curves."""
    trained = {name: entry for name, entry in study.teachers.items() if isinstance(entry, TrainedTeacher)}
    panels = {name: _variant(entry) for name, entry in {**trained, **study.students}.items()}
    return settings(TrainingFigureJob(version=figures.STAGE_VERSION, panels=panels))


def map_figure_settings(study: Study, model: str) -> str:
    """Settings of the map of one network's features."""
    return settings(MapFigureJob(version=figures.STAGE_VERSION, preprocessing=study.data.preprocessing, model=model))


def _variant(entry: TrainedTeacher | Student) -> str:
    """Return a method and what of it changes the meaning of its loss."""
    parts: list[str] = [entry.method]
    parts += [getattr(entry, key) for key in ("objective", "variant") if hasattr(entry, key)]
    if terms := getattr(entry, "terms", None):
        parts.append("+".join(terms))
    return " ".join(parts)


def _printed(backbone: Backbone) -> str:
    """Return what a backbone is called in print."""
    return backbone.architecture if backbone.width == 1 else f"{backbone.architecture}, width {backbone.width:g}"
