"""Jobs of the stages that prepare data, train networks and evaluate them."""

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
    """List the images of one split; each file is decoded once to check it."""

    STAGE: ClassVar[str] = "data"
    STAGE_VERSION: ClassVar[int] = 2

    split: Split
    data: Annotated[ImageSet, Field(discriminator="source")]
    key: Text
    """Key of the dataset in the study, for messages."""
    train_listing: OptionalInput = None
    """Listing of the training images, which defines the classes of the validation images."""
    output: Output
    """Listing to write."""

    @classmethod
    def of(cls, plan: Plan, split: Split, target: str = "") -> Self:
        """Return the job for the study's own images, or for the dataset ``target`` of `transfer`."""
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
    """Copy the images of a folder into one file, unchanged or resized."""

    STAGE: ClassVar[str] = "pack"
    STAGE_VERSION: ClassVar[int] = 1

    split: Split
    pack: Pack
    listing: Input
    """Listing of the images (data stage)."""
    output: Output
    """HDF5 file to write."""

    @classmethod
    def of(cls, plan: Plan, split: Split) -> Self:
        """Return the job of one split of a study with `data.pack`."""
        assert isinstance(plan.study.data, FolderData)
        assert plan.study.data.pack is not None
        return cls(
            split=split,
            pack=plan.study.data.pack,
            listing=Path(plan.path(f"data/{split}-listing.h5")),
            output=Path(plan.path(f"data/{split}.h5")),
        )

    def irrelevant(self) -> Exclusion:
        """Exclude the JPEG quality if no image is re-encoded."""
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
    """CSV to write, one line per epoch."""
    events: Events = None
    """Folder for TensorBoard events; none are written without it."""

    @classmethod
    def of(cls, plan: Plan, teacher: str) -> Self:
        """Return the job of one teacher."""
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
    """Import a pretrained teacher from a checkpoint."""

    STAGE: ClassVar[str] = "imported_teacher"
    STAGE_VERSION: ClassVar[int] = 1

    format: CheckpointFormat | None
    part: str | None
    architecture: str | None
    checkpoint: Input
    """Checkpoint file."""
    output: Output
    """Safetensors file to write."""

    @classmethod
    def of(cls, plan: Plan, teacher: str) -> Self:
        """Return the job of one imported teacher."""
        entry = plan.study.teachers[teacher]
        assert isinstance(entry, ImportedTeacher)
        settings = entry.model_dump(exclude={"checkpoint"})
        return cls(**settings, checkpoint=Path(entry.checkpoint), output=Path(plan.weights(teacher, 0)))


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
    """Compute only this part of the rows as a shard, for example 3-of-8."""
    shards: Inputs = Field(default=[])
    """Shards to merge; repeat the option for each."""
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
    """The teacher that computed the embeddings."""
    embeddings: OptionalInput = None
    """Embeddings of the training images."""
    part: OptionalText = None
    """Compute only this part of the rows as a shard, for example 3-of-8."""
    shards: Inputs = Field(default=[])
    """Shards to merge; repeat the option for each."""
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
        """Return whether several jobs can share the work: a neighbour search handles each image independently."""
        return isinstance(self.bags, KnnBag)


class TargetsJob(Job):
    """Store a teacher's outputs for random views of each training image."""

    STAGE: ClassVar[str] = "targets"
    STAGE_VERSION: ClassVar[int] = 1
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: NetworkInput
    recipe: RecipeName
    precision: Precision
    layer: Layer
    number: int
    """Slot of the teacher view (`View.slot`)."""
    views: int
    """Number of stored views of each image."""
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
        """Return the job of one teacher view."""
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
    """Train a student, with or without a teacher and bags."""

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
    """Stored outputs that replace the teacher; repeat the option for each teacher view of a step."""
    bags: OptionalInput = None
    """Bags from which positives are sampled."""
    output: Output
    """Folder for backbone, head and log.csv."""
    events: Events = None
    """Folder for TensorBoard events; none are written without it."""

    @classmethod
    def of(cls, plan: Plan, student: str, seed: int) -> Self:
        """Return the job of one student with one seed.

        Teacher and bags are input files, so their names in the study are not settings. The settings contain the kind
        of the bags instead.
        """
        study, entry = plan.study, plan.study.students[student]
        teacher, bags, bags_entry = study.teacher_of(student), study.bags_of(student), entry.named_bags()
        targets = [Path(plan.path(f"targets/{name}.h5")) for name in plan.targets_of(student)]
        return cls(
            preprocessing=study.data.preprocessing.network_input(),
            student=entry if bags_entry is None else entry.model_copy(update={"bags": study.bags[bags_entry].kind()}),
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
    """Evaluate a network by a protocol."""

    model: str
    protocol: str
    """Name of the protocol in `bingo.study.protocols`."""
    target: str
    """Dataset of `transfer` to evaluate on; empty for the study's own images."""
    seed: int

    @property
    def evaluation(self) -> str:
        """Name of the evaluation in results and tables, such as `cifar10-linear`."""
        return f"{self.target}-{self.protocol}" if self.target else self.protocol


class EvaluationJob(MeasurementJob):
    """Evaluate a backbone by a protocol."""

    STAGE: ClassVar[str] = "evaluation"
    STAGE_VERSION: ClassVar[int] = 3
    DEVICE: ClassVar[Device] = "shared"

    preprocessing: Preprocessing
    listing: Input
    """Listing of the training images (data stage)."""
    val_listing: Input
    """Listing of the validation images."""
    label_list: OptionalInput = None
    """File that lists the images whose labels are used."""
    weights: Input
    """Backbone of a student, or a teacher."""
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
    """Train a detector on a backbone and evaluate it."""

    STAGE: ClassVar[str] = "detection"
    STAGE_VERSION: ClassVar[int] = 2
    DEVICE: ClassVar[Device] = "one"

    preprocessing: NetworkInput
    """Mean and standard deviation are used; the protocol defines the image size."""
    images: Annotated[Path, Role.OPTION]
    """Folder of training images."""
    annotations: Input
    """COCO JSON file of the training annotations."""
    val_images: Annotated[Path, Role.OPTION]
    """Folder of validation images."""
    val_annotations: Input
    """COCO JSON file of the validation annotations."""
    weights: Input
    """Backbone of a student, or a teacher."""
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
        """Exclude the image size and decoder, which detectors do not use."""
        return {"preprocessing": {"size", "decoder"}}


class ExportJob(Job):
    """Export a backbone to the format of another library."""

    STAGE: ClassVar[str] = "export"
    STAGE_VERSION: ClassVar[int] = 1

    to: ExportFormat
    resize: int | None
    weights: Input
    """Backbone of a student, or a teacher."""
    output: Output
    """File to write; a folder for huggingface."""
