"""What each stage is given of a study: the part on which its result depends, and nothing else.

Snakemake sees each job's settings as one canonical JSON string and reruns the stage when the string changes. So a
key that cannot change a result must not be in it, and a key that can must be.
"""

import json
from typing import Any, Literal

from bingo import bags, data, embeddings, evaluation, report, student, tables, targets, teacher
from bingo.config import Bag, CheckpointFormat, Data, ImportedTeacher, Study, TrainedTeacher
from bingo.methods import Student
from bingo.methods.method import Layer
from bingo.sections import NetworkInput, Precision, Preprocessing, RecipeName, Strict

# How pixels are prepared and loaded is no part of a listing, nor is the other split.
NOT_LISTED = {
    "train": {"data": {"workers", "preprocessing", "val", "max_val"}},
    "val": {"data": {"workers", "preprocessing", "max_train"}},
}


class Job(Strict):
    """Settings of one job of one stage."""

    version: int
    """The stage's STAGE_VERSION."""


class DataJob(Job):
    """List one split of a dataset."""

    split: Literal["train", "val"]
    data: Data


class TeacherJob(Job):
    """Pretrain a teacher."""

    preprocessing: NetworkInput
    teacher: TrainedTeacher


class ImportJob(Job):
    """Take over a teacher that somebody has trained; its file is an input."""

    format: CheckpointFormat | None
    part: str | None
    architecture: str | None


class EmbeddingsJob(Job):
    """Embed the training images."""

    preprocessing: Preprocessing


class BagsJob(Job):
    """Group images."""

    bags: Bag


class TargetsJob(Job):
    """Store a teacher's outputs for random views of the training images."""

    preprocessing: NetworkInput
    recipe: RecipeName
    precision: Precision
    layer: Layer
    number: int
    """Which of the teacher views that an epoch has."""
    views: int
    """Views of each image."""


class StudentJob(Job):
    """Train a student."""

    preprocessing: NetworkInput
    student: Student
    seed: int


class EvaluationJob(Job):
    """Evaluate a backbone."""

    preprocessing: Preprocessing
    model: str
    protocol: str
    seed: int


class Row(Strict):
    """A line of a table: which result files belong to it, and how it is named."""

    model: str
    method: str
    student: str
    teacher: str
    bags: str


class TableJob(Job):
    """Gather result files."""

    rows: list[Row]
    evaluations: list[str]


class TextJob(Job):
    """Render a table."""

    title: str


class ReportJob(Job):
    """Write the report."""

    study: str
    left_out: str
    """What the data did not allow, empty if nothing."""


def settings(job: Job, exclude: dict[str, Any] | None = None) -> str:
    """Return a job's settings as canonical JSON: sorted keys, defaults filled in."""
    return json.dumps(job.model_dump(mode="json", exclude=exclude), sort_keys=True)


def data_settings(study: Study, split: Literal["train", "val"]) -> str:
    """Settings of one split's listing."""
    job = DataJob(version=data.STAGE_VERSION, split=split, data=study.data)
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


def evaluation_settings(study: Study, model: str, protocol: str, seed: int) -> str:
    """Settings of one protocol on one backbone."""
    return settings(
        EvaluationJob(
            version=evaluation.STAGE_VERSION,
            preprocessing=study.data.preprocessing,
            model=model,
            protocol=protocol,
            seed=seed,
        )
    )


def table_rows(study: Study, name: str) -> list[Row]:
    """The lines of a table: all teachers and students, or the students it names and what teaches them."""
    shown = study.tables[name].students
    students = list(study.students) if shown is None else shown
    named = set(study.teachers) if shown is None else {study.teacher_of(student) for student in students}
    rows = [
        Row(model=name, method=getattr(entry, "method", "imported"), student="", teacher=name, bags="")
        for name, entry in study.teachers.items()
        if name in named
    ]
    for name in students:
        entry = study.students[name]
        origin = {"teacher": study.teacher_of(name) or "", "bags": study.bags_of(name) or ""}
        rows.append(Row(model=name, method=entry.method, student=name, **origin))
    return rows


def table_evaluations(study: Study, name: str) -> list[str]:
    """The protocols of a table."""
    shown = study.tables[name].evaluations
    return study.evaluations if shown is None else shown


def table_settings(study: Study, name: str) -> str:
    """Settings of a table's numbers."""
    return settings(
        TableJob(
            version=tables.STAGE_VERSION,
            rows=table_rows(study, name),
            evaluations=table_evaluations(study, name),
        )
    )


def text_settings(study: Study, name: str) -> str:
    """Settings of a table's Markdown and LaTeX, its title among them."""
    return settings(TextJob(version=tables.STAGE_VERSION, title=study.tables[name].title))


def report_settings(study: Study, left_out: str) -> str:
    """Settings of the report."""
    return settings(ReportJob(version=report.STAGE_VERSION, study=study.study, left_out=left_out))


def model_seeds(study: Study, model: str) -> list[int]:
    """The seeds for which results of a teacher or student exist."""
    return [getattr(study.teachers[model], "seed", 0)] if model in study.teachers else study.seeds
