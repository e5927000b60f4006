"""Base classes of methods: settings in a study file, required views, and loss.

The methods are modules of `bingo.methods`, which registers them here. They import torch only inside functions, because
Snakemake reads the settings at every start.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from bingo.study.sections import Backbone, StrictModel, Training, setting_error

if TYPE_CHECKING:
    from torch import Tensor

Layer = Literal["projection", "features"]


@dataclass(frozen=True)
class View:
    """One random view of each anchor, or of a member of its bag.

    Teacher views are the same for every student and seed, so that the teacher's outputs can be stored.
    """

    image: Literal["anchor", "positive"]
    slot: int
    """Index of the view in the key of its random numbers. Student and teacher views are numbered separately from 0."""
    teacher: bool = False
    """Whether the teacher sees the view."""
    student: bool = True
    """Whether the student sees the view."""


class Step(Protocol):
    """The interface of a training step to a method's loss. All outputs are float32 unit vectors (B, D)."""

    seed: int
    epoch: int
    step: int
    """Step within the epoch, from 0."""
    images: "dict[str, Tensor]"
    """Images (B, 3, S, S) of each view that a network sees in training."""

    def student(self, images: "Tensor", track_statistics: bool = True) -> "Tensor":
        """Return the student's embeddings of ``images`` (B, 3, S, S), with gradients.

        ``track_statistics`` controls whether they update the running statistics of batch norm.
        """

    def momentum(self, images: "Tensor") -> "Tensor":
        """Return the momentum encoder's embeddings of ``images`` (B, 3, S, S), without gradients."""

    def teacher(self, view: str) -> "Tensor":
        """Return the outputs of the frozen teacher for the named view."""

    def queue(self, name: str) -> "Tensor":
        """Return the named queue as it was before the step: (Q, D)."""

    def enqueue(self, name: str, keys: "Tensor") -> None:
        """Replace the oldest entries of the named queue by ``keys`` (B, D) after the step."""


class Method(StrictModel):
    """Base class of all methods, which train a backbone on views of images."""

    method: str
    """Name of the method."""
    backbone: Backbone
    """The network to train."""
    training: Training = Training()
    """Optimizer, schedule and augmentation."""
    queue_size: int = Field(default=65536, ge=1)
    """Number of past embeddings used as negatives."""

    layer: ClassVar[Layer] = "projection"
    """Output of the teacher that the method distils."""

    @abstractmethod
    def views(self) -> dict[str, View]:
        """Return the views that a step needs, by the names that `loss` uses."""

    @abstractmethod
    def loss(self, step: "Step") -> "dict[str, Tensor]":
        """Return the scalar `loss` of one step, and other values to log."""

    @abstractmethod
    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return the layer widths of the projection head; empty without a head.

        Args:
            features: width of the backbone's output.
            teacher: width of the teacher's output, 0 without a teacher.
        """

    def named_teacher(self) -> str | None:
        """Return the entry of `teachers` in the method's settings, if any."""
        return None

    def named_bags(self) -> str | None:
        """Return the entry of `bags` in the method's settings, if any."""
        return None

    def stored_views(self) -> int | None:
        """Return the number of stored teacher views; None if no teacher outputs are stored."""
        return None

    def loss_name(self) -> str:
        """Return the method's name with the settings that change the meaning of its loss."""
        return self.method

    def teacher_view_slots(self) -> list[int]:
        """Return the slots of the views that the teacher sees."""
        return sorted({view.slot for view in self.views().values() if view.teacher})

    def whole_loss(self) -> bool:
        """Return whether the loss has all its terms, unlike in ablations."""
        return True

    def own_seed(self) -> int:
        """Return the seed of a teacher; students use the seeds of the study."""
        return 0

    def draws_positives(self) -> bool:
        """Return whether the method samples positives from bags."""
        return any(view.image == "positive" for view in self.views().values())

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return the queues by name, with the network whose outputs fill them."""
        return {"negatives": "student"}

    def ema_momentum(self) -> float | None:
        """Return the momentum of the momentum encoder; None if the method has no momentum encoder."""
        return None


class DistillationHead(StrictModel):
    """Projection head of a student: Linear, ReLU, Linear. Its output is as wide as the teacher's output."""

    hidden: int | None = Field(default=2048, ge=1)
    """Width of the hidden layer; null for the width of the backbone's output."""


class Distillation(Method):
    """Base class of methods that learn from a frozen teacher."""

    teacher: str | None = None
    """Entry of `teachers` to distil; null for the teacher of the student's bags, if they have one."""
    teacher_views: Literal["online"] | int = Field(default="online", union_mode="left_to_right")
    """`online`: run the teacher during training. A number: compute the teacher's outputs for this many views of each
    image once, store them, and share them between all students. With as many views as `epochs`, the result equals
    `online` up to float16 rounding."""
    teacher_batch_norm: Literal["eval", "batch"] = "eval"
    """Batch norm of the teacher: `eval` uses running statistics; `batch` uses batch statistics, as BINGO's released
    code does."""

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return one queue of the teacher's outputs."""
        return {"negatives": "teacher"}

    def named_teacher(self) -> str | None:
        """Return the entry of `teachers` in the method's settings, if any."""
        return self.teacher

    def stored_views(self) -> int | None:
        """Return the number of stored teacher views; None if the teacher runs during training."""
        return None if self.teacher_views == "online" else self.teacher_views

    @field_validator("teacher_views", mode="before")
    @classmethod
    def _online_or_number(cls, value: Any) -> Any:
        if value != "online" and (type(value) is not int or value < 1):
            raise setting_error(f"must be online or an integer of 1 or more, found {value!r}")
        return value

    @model_validator(mode="after")
    def _can_be_stored(self) -> Self:
        if self.teacher_views != "online":
            if self.teacher_batch_norm == "batch":
                message = "teacher_views: outputs that depend on the batch cannot be stored"
                raise setting_error(f"{message}; set online, or teacher_batch_norm: eval")
            if self.teacher_views > self.training.epochs:
                views, epochs = self.teacher_views, self.training.epochs
                raise setting_error(
                    f"teacher_views: {views} is more than the {epochs} epochs, each of which uses one view; lower it"
                )
        return self


STUDENTS: list[type[Method]] = []
"""Methods of students; `bingo.methods` fills both lists."""
TEACHERS: list[type[Method]] = []
"""Methods of trained teachers."""
