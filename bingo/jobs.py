"""What each stage is given: the part of a study on which its result depends, and nothing else.

Snakemake sees each job's settings as one canonical JSON string and reruns the stage when the string changes. So a
key that cannot change a result must not be in it, and a key that can must be.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from bingo.config import Bag, CheckpointFormat, ImageSet, Pack, Study, TrainedTeacher
from bingo.methods import Student
from bingo.methods.method import Layer
from bingo.sections import NetworkInput, Precision, Preprocessing, RecipeName, Strict

# The other split is no part of a listing.
NOT_LISTED = {
    "train": {"data": {"val", "max_val"}},
    "val": {"data": {"max_train"}},
}


class Job(Strict):
    """Settings of one job of one stage."""

    version: int
    """The stage's STAGE_VERSION."""


class DataJob(Job):
    """List one split of a dataset."""

    split: Literal["train", "val"]
    data: Annotated[ImageSet, Field(discriminator="source")]


class PackJob(Job):
    """Pack one split of a folder of images; its listing is an input file."""

    split: Literal["train", "val"]
    pack: Pack


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


class _Measurement(Job):
    model: str
    protocol: str
    """As `bingo.evaluation.protocols` names it."""
    target: str
    """Which other set it is measured on, empty for the study's own images."""
    seed: int

    @property
    def name(self) -> str:
        """Name of the protocol in results and tables: `cifar10-linear`, say."""
        return f"{self.target}-{self.protocol}" if self.target else self.protocol


class EvaluationJob(_Measurement):
    """Evaluate a backbone."""

    preprocessing: Preprocessing


class DetectionJob(_Measurement):
    """Fine-tune a backbone as part of a detector."""

    preprocessing: NetworkInput
    """Its mean and standard deviation are used; sizes come from the protocol."""


class Row(Strict):
    """A line of a table: which result files belong to it, and how it is named."""

    model: str
    method: str
    student: str
    teacher: str
    bags: str
    architecture: str
    """The student's, as publications name it; empty if they have no such student."""


class TableJob(Job):
    """Gather result files."""

    rows: list[Row]
    evaluations: list[str]


class TextJob(Job):
    """Render a table."""

    title: str


class AccuracyFigureJob(Job):
    """Draw the numbers of a table."""

    architectures: dict[str, str]
    """Of each student, what its network is called in print."""


class BagSizeSeries(Strict):
    """Students that differ in nothing but the size of their bags."""

    label: str
    sizes: dict[str, int]
    """Of each student, neighbours per bag."""


class BagSizeFigureJob(Job):
    """Draw accuracy against bag size."""

    series: list[BagSizeSeries]
    evaluations: list[str]


class TrainingFigureJob(Job):
    """Draw training curves."""

    panels: dict[str, str]
    """Of each teacher and student, the title of its panel."""


class MapFigureJob(Job):
    """Draw a network's features of some images in the plane."""

    preprocessing: Preprocessing
    model: str


class ReportJob(Job):
    """Write the report."""

    study: Study
    left_out: str
    """What the data did not allow, empty if nothing."""


def settings(job: Job, exclude: dict[str, Any] | None = None) -> str:
    """Return a job's settings as canonical JSON: sorted keys, defaults filled in."""
    return json.dumps(job.model_dump(mode="json", exclude=exclude), sort_keys=True)
