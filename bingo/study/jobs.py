"""The job of each stage that makes networks and measures them."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from bingo.study.bags import Bag, KnnBag
from bingo.study.images import CocoSet, FolderData, ImageSet, Pack
from bingo.study.job import (
    Device,
    Exclusion,
    Input,
    Inputs,
    Job,
    OptionalInput,
    OptionalText,
    Output,
    Role,
    Text,
)
from bingo.study.method import Layer
from bingo.study.plan import Plan
from bingo.study.schema import Student
from bingo.study.sections import ExportFormat, NetworkInput, Precision, Preprocessing, RecipeName
from bingo.study.teachers import CheckpointFormat, ImportedTeacher, TrainedTeacher

Split = Literal["train", "val"]
Events = Annotated[Path | None, Role.OPTION]


class DataJob(Job):
    """List the images of one split, each file decoded once to prove it sound."""

    STAGE: ClassVar[str] = "data"
    STAGE_VERSION: ClassVar[int] = 2

    split: Split
    data: Annotated[ImageSet, Field(discriminator="source")]
    key: Text
    """Key of the study that describes the images, for messages."""
    train_listing: OptionalInput = None
    """Listing of training images, whose classes validation images have."""
    output: Output
    """Listing to write."""

    @classmethod
    def of(cls, plan: Plan, split: Split, target: str = "") -> Self:
        """Return the job of the study's own images, or of another set."""
        images = plan.study.target(target) if target else plan.study.data
        assert not isinstance(images, CocoSet)
        folder = f"data/{target}/" if target else "data/"
        return cls(
            split=split,
            data=images,
            key=f"transfer.{target}" if target else "data",
            train_listing=Path(plan.path(f"{folder}train-listing.h5")) if split == "val" else None,
            output=Path(plan.path(f"{folder}{split}-listing.h5")),
        )

    def irrelevant(self) -> Exclusion:
        """Return the keys of the other split."""
        return {"data": {"val", "max_val"} if self.split == "train" else {"max_train"}}


class PackJob(Job):
    """Copy the images of a folder, as they are or shortened, into one file."""

    STAGE: ClassVar[str] = "pack"
    STAGE_VERSION: ClassVar[int] = 1

    split: Split
    pack: Pack
    listing: Input
    """Listing of the images (data stage)."""
    output: Output
    """Pack to write."""

    @classmethod
    def of(cls, plan: Plan, split: Split) -> Self:
        """Return the job of one split, where the study asks for packs."""
        assert isinstance(plan.study.data, FolderData)
        assert plan.study.data.pack is not None
        return cls(
            split=split,
            pack=plan.study.data.pack,
            listing=Path(plan.path(f"data/{split}-listing.h5")),
            output=Path(plan.path(f"data/{split}.h5")),
        )

    def irrelevant(self) -> Exclusion:
        """Return the quality of what is not encoded."""
        return {"pack": {"quality"}} if self.pack.shorter_side is None else {}


class TeacherJob(Job):
    """Pretrain a teacher."""

    STAGE: ClassVar[str] = "teacher"
    STAGE_VERSION: ClassVar[int] = 1
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: NetworkInput
    teacher: TrainedTeacher
    name: Text
    """Name for progress lines."""
    listing: Input
    """Listing of the training images (data stage)."""
    output: Output
    """Safetensors file to write."""
    training_log: Output
    """CSV to write, a line per epoch."""
    events: Events = None
    """Folder for TensorBoard's events; without it none are written."""

    @classmethod
    def of(cls, plan: Plan, teacher: str) -> Self:
        """Return the job of one trained teacher."""
        entry = plan.study.teachers[teacher]
        assert not isinstance(entry, ImportedTeacher)
        return cls(
            preprocessing=plan.study.data.preprocessing.network_input(),
            teacher=entry,
            name=teacher,
            listing=Path(plan.listing("train")),
            output=Path(plan.weights(teacher, 0)),
            training_log=Path(plan.path(f"teachers/{teacher}.csv")),
        )


class ImportJob(Job):
    """Take over a teacher that somebody has trained."""

    STAGE: ClassVar[str] = "imported_teacher"
    STAGE_VERSION: ClassVar[int] = 1

    format: CheckpointFormat | None
    part: str | None
    architecture: str | None
    checkpoint: Input
    """File of weights."""
    output: Output
    """Safetensors file to write."""

    @classmethod
    def of(cls, plan: Plan, teacher: str) -> Self:
        """Return the job of one imported teacher."""
        entry = plan.study.teachers[teacher]
        assert isinstance(entry, ImportedTeacher)
        told = entry.model_dump(exclude={"checkpoint"})
        return cls(**told, checkpoint=Path(entry.checkpoint), output=Path(plan.weights(teacher, 0)))


class EmbeddingsJob(Job):
    """Embed every training image with a teacher."""

    STAGE: ClassVar[str] = "embeddings"
    STAGE_VERSION: ClassVar[int] = 2
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: Preprocessing
    listing: Input
    """Listing of the training images (data stage)."""
    teacher: Input
    """The teacher."""
    part: OptionalText = None
    """Make this part of the rows alone, 3-of-8 say, as a shard."""
    shards: Inputs = Field(default=[])
    """Shards to gather; one option for each."""
    output: Output
    """HDF5 file to write."""

    @classmethod
    def of(cls, plan: Plan, teacher: str) -> Self:
        """Return the job of one teacher."""
        return cls(
            preprocessing=plan.study.data.preprocessing,
            listing=Path(plan.listing("train")),
            teacher=Path(plan.weights(teacher, 0)),
            output=Path(plan.path(f"embeddings/{teacher}.h5")),
        )


class BagsJob(Job):
    """Group images into bags."""

    STAGE: ClassVar[str] = "bags"
    STAGE_VERSION: ClassVar[int] = 2

    bags: Bag
    listing: Input
    """Listing of the training images (data stage)."""
    teacher: OptionalInput = None
    """The teacher that made the embeddings."""
    embeddings: OptionalInput = None
    """Embeddings of the training images."""
    part: OptionalText = None
    """Make this part of the rows alone, 3-of-8 say, as a shard."""
    shards: Inputs = Field(default=[])
    """Shards to gather; one option for each."""
    output: Output
    """HDF5 file to write."""

    @classmethod
    def of(cls, plan: Plan, bags: str) -> Self:
        """Return the job of one entry of `bags`."""
        entry = plan.study.bags[bags]
        teacher = entry.named_teacher()
        return cls(
            bags=entry,
            listing=Path(plan.listing("train")),
            teacher=None if teacher is None else Path(plan.weights(teacher, 0)),
            embeddings=None if teacher is None else Path(plan.path(f"embeddings/{teacher}.h5")),
            output=Path(plan.path(f"bags/{bags}.h5")),
        )

    def is_searched(self) -> bool:
        """Tell whether images can be shared out among jobs: a search looks up each image by itself."""
        return isinstance(self.bags, KnnBag)


class TargetsJob(Job):
    """Store a teacher's outputs for random views of every training image."""

    STAGE: ClassVar[str] = "targets"
    STAGE_VERSION: ClassVar[int] = 1
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: NetworkInput
    recipe: RecipeName
    precision: Precision
    layer: Layer
    number: int
    """Which of the teacher views that an epoch has."""
    views: int
    """Views of each image."""
    listing: Input
    """Listing of the training images (data stage)."""
    teacher: Input
    """The teacher."""
    output: Output
    """HDF5 file to write."""

    @classmethod
    def of(
        cls, plan: Plan, teacher: str, recipe: RecipeName, precision: Precision, layer: Layer, number: int, views: int
    ) -> Self:
        """Return the job of one of the teacher views."""
        name = f"{recipe}-{precision}-{layer}-{number}-{views}"
        return cls(
            preprocessing=plan.study.data.preprocessing.network_input(),
            recipe=recipe,
            precision=precision,
            layer=layer,
            number=number,
            views=views,
            listing=Path(plan.listing("train")),
            teacher=Path(plan.weights(teacher, 0)),
            output=Path(plan.path(f"targets/{teacher}/{name}.h5")),
        )


class StudentJob(Job):
    """Train a student, alone or from a teacher and its bags."""

    STAGE: ClassVar[str] = "student"
    STAGE_VERSION: ClassVar[int] = 2
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: NetworkInput
    student: Student
    seed: int
    name: Text
    """Name for progress lines."""
    listing: Input
    """Listing of the training images (data stage)."""
    teacher: OptionalInput = None
    """Teacher to distil."""
    targets: Inputs = Field(default=[])
    """The teacher's stored outputs, in its place; one option for each teacher view of an epoch."""
    bags: OptionalInput = None
    """Bags to draw positives from."""
    output: Output
    """Folder for backbone, head and log.csv."""
    events: Events = None
    """Folder for TensorBoard's events; without it none are written."""

    @classmethod
    def of(cls, plan: Plan, student: str, seed: int) -> Self:
        """Return the job of one student with one seed.

        Teacher and bags are input files, so what the study calls them is no setting, which names bags by their kind.
        """
        study, entry = plan.study, plan.study.students[student]
        teacher, bags, named = study.teacher_of(student), study.bags_of(student), entry.named_bags()
        targets = [Path(plan.path(f"targets/{name}.h5")) for name in plan.targets_of(student)]
        return cls(
            preprocessing=study.data.preprocessing.network_input(),
            student=entry if named is None else entry.model_copy(update={"bags": study.bags[named].kind()}),
            seed=seed,
            name=student,
            listing=Path(plan.listing("train")),
            teacher=None if teacher is None or targets else Path(plan.weights(teacher, 0)),
            targets=targets,
            bags=None if bags is None else Path(plan.path(f"bags/{bags}.h5")),
            output=Path(plan.weights(student, seed)).parent,
        )

    def irrelevant(self) -> Exclusion:
        """Return the name of the teacher."""
        return {"student": {"teacher"}}


class MeasurementJob(Job):
    """Measure a network by a protocol."""

    model: str
    protocol: str
    """As `bingo.study.protocols` names it."""
    target: str
    """Which other set it is measured on, empty for the study's own images."""
    seed: int

    @property
    def evaluation(self) -> str:
        """Name of the protocol in results and tables: `cifar10-linear`, say."""
        return f"{self.target}-{self.protocol}" if self.target else self.protocol


class EvaluationJob(MeasurementJob):
    """Measure a backbone by a named protocol."""

    STAGE: ClassVar[str] = "evaluation"
    STAGE_VERSION: ClassVar[int] = 3
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: Preprocessing
    listing: Input
    """Listing of the training images (data stage)."""
    val_listing: Input
    """Listing of the validation images."""
    label_list: OptionalInput = None
    """File that names the images whose labels are used."""
    weights: Input
    """A student's backbone, or a teacher."""
    output: Output
    """JSON to write."""

    @classmethod
    def of(cls, plan: Plan, model: str, seed: int, evaluation: str) -> Self:
        """Return the job of one evaluation of one backbone."""
        target, protocol = plan.study.split_evaluation(evaluation)
        labels = None if target else plan.label_lists().get(protocol)
        return cls(
            preprocessing=plan.study.data.preprocessing,
            model=model,
            protocol=protocol,
            target=target,
            seed=seed,
            listing=Path(plan.listing("train", target)),
            val_listing=Path(plan.listing("val", target)),
            label_list=None if labels is None else Path(labels),
            weights=Path(plan.weights(model, seed)),
            output=Path(plan.result(model, seed, evaluation)),
        )


class DetectionJob(MeasurementJob):
    """Train a detector on a backbone, and measure it."""

    STAGE: ClassVar[str] = "detection"
    STAGE_VERSION: ClassVar[int] = 2
    DEVICE: ClassVar[Device] = "one"

    preprocessing: NetworkInput
    """Its mean and standard deviation are used; sizes come from the protocol."""
    images: Annotated[Path, Role.OPTION]
    """Folder of training images."""
    annotations: Input
    """Their annotations, COCO's JSON."""
    val_images: Annotated[Path, Role.OPTION]
    """Folder of validation images."""
    val_annotations: Input
    """Their annotations, COCO's JSON."""
    weights: Input
    """A student's backbone, or a teacher."""
    output: Output
    """JSON to write."""

    @classmethod
    def of(cls, plan: Plan, model: str, seed: int, evaluation: str) -> Self:
        """Return the job of one detector on one backbone."""
        target, protocol = plan.study.split_evaluation(evaluation)
        images = plan.study.target(target)
        assert isinstance(images, CocoSet)
        return cls(
            preprocessing=plan.study.data.preprocessing.network_input(),
            model=model,
            protocol=protocol,
            target=target,
            seed=seed,
            images=Path(images.train),
            annotations=Path(images.train_annotations),
            val_images=Path(images.val),
            val_annotations=Path(images.val_annotations),
            weights=Path(plan.weights(model, seed)),
            output=Path(plan.result(model, seed, evaluation)),
        )

    def irrelevant(self) -> Exclusion:
        """Return what detectors have of their own."""
        return {"preprocessing": {"size", "decoder"}}


class ExportJob(Job):
    """Write a backbone in a format that other software loads."""

    STAGE: ClassVar[str] = "export"
    STAGE_VERSION: ClassVar[int] = 1

    to: ExportFormat
    resize: int | None
    weights: Input
    """A student's backbone, or a teacher."""
    output: Output
    """File to write, for huggingface a folder."""
