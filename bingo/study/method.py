"""What a method is: its settings in a study file, the views it needs, and its loss.

The methods themselves are modules of `bingo.methods`, which enters them here. They import torch only inside functions:
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
    """One random view that a method needs of every anchor, or of a member of its bag.

    Views that a teacher sees are the same for every student and seed, so that its outputs can be stored.
    """

    image: Literal["anchor", "positive"]
    slot: int
    """Which view of the image this is: the slot in the key of its random numbers. Views of students and of teachers
    are counted from 0 each."""
    teacher: bool = False
    """Whether the teacher sees it."""
    student: bool = True
    """Whether the student sees it."""


class Step(Protocol):
    """One training step as a method's loss sees it. All outputs are float32 unit vectors (B, D)."""

    seed: int
    epoch: int
    step: int
    """Step within the epoch, from 0."""
    images: "dict[str, Tensor]"
    """(B, 3, S, S) of each of the method's views that a network sees in training."""

    def student(self, images: "Tensor", track_statistics: bool = True) -> "Tensor":
        """Return the student's embeddings of ``images`` (B, 3, S, S); gradients flow.

        ``track_statistics`` says whether they count for batch-norm's running statistics.
        """

    def momentum(self, images: "Tensor") -> "Tensor":
        """Return the moving average's embeddings of ``images`` (B, 3, S, S)."""

    def teacher(self, view: str) -> "Tensor":
        """Return the frozen teacher's outputs for the view of that name."""

    def queue(self, name: str) -> "Tensor":
        """Return the queue of that name as it was before the step: (Q, D)."""

    def enqueue(self, name: str, keys: "Tensor") -> None:
        """Let ``keys`` (B, D) replace the oldest entries of a queue after the step."""


class Method(StrictModel):
    """Base of all methods: a backbone trained on views of images."""

    method: str
    """Name of the method."""
    backbone: Backbone
    """The network to train."""
    training: Training = Training()
    """Optimizer, schedule and views."""
    queue_size: int = Field(default=65536, ge=1)
    """Number of past embeddings that serve as negatives."""

    layer: ClassVar[Layer] = "projection"
    """Which output of a teacher it distils."""

    @abstractmethod
    def views(self) -> dict[str, View]:
        """Return the views that a step needs, by the name that `loss` knows them under."""

    @abstractmethod
    def loss(self, step: "Step") -> "dict[str, Tensor]":
        """Return the scalar `loss`, and whatever else to log, of one step."""

    @abstractmethod
    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return the widths of the projection head's layers, none for no head.

        Args:
            features: width of the backbone's output.
            teacher: width of what the teacher puts out, 0 without a teacher.
        """

    def named_teacher(self) -> str | None:
        """Return the entry of `teachers` that the study names for it."""
        return None

    def named_bags(self) -> str | None:
        """Return the entry of `bags` that the study names for it."""
        return None

    def stored_views(self) -> int | None:
        """Return the number of stored teacher views, None where no teacher's outputs are stored."""
        return None

    def loss_name(self) -> str:
        """Return the method's name, and what of its settings changes the meaning of its loss."""
        return self.method

    def teacher_view_slots(self) -> list[int]:
        """Return the numbers of the views that the teacher sees."""
        return sorted({view.slot for view in self.views().values() if view.teacher})

    def whole_loss(self) -> bool:
        """Return whether no term of the loss is left out, as in ablations."""
        return True

    def own_seed(self) -> int:
        """Return a teacher's seed; a student has those of its study."""
        return 0

    def draws_positives(self) -> bool:
        """Return whether it needs members of bags, which its key `bags` names."""
        return any(view.image == "positive" for view in self.views().values())

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return the name of each queue, and whose outputs fill it."""
        return {"negatives": "student"}

    def ema_momentum(self) -> float | None:
        """Return the momentum of the student's moving average, None where there is none."""
        return None


class DistillationHead(StrictModel):
    """Projection head of a student: Linear, ReLU, Linear, as wide at its end as the teacher's output."""

    hidden: int | None = Field(default=2048, ge=1)
    """Width of the hidden layer; null for the backbone's own width."""


class Distillation(Method):
    """Base of methods that learn from a frozen teacher."""

    teacher: str | None = None
    """Entry of `teachers` to distil; null for the teacher of the bags, where the method has bags that have one."""
    teacher_views: Literal["online"] | int = Field(default="online", union_mode="left_to_right")
    """`online`: the teacher runs in training; or a number of views of each image, whose teacher outputs are computed
    once, stored, and shared by all students. As many as `epochs` give what `online` gives, up to
    float16 rounding."""
    teacher_batch_norm: Literal["eval", "batch"] = "eval"
    """`eval`: the teacher's batch-norm uses its running statistics; `batch`: those of the batch, as BINGO's released
    code does."""

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return one queue, of the teacher's outputs."""
        return {"negatives": "teacher"}

    def named_teacher(self) -> str | None:
        """Return the entry of `teachers` that the study names for it."""
        return self.teacher

    def stored_views(self) -> int | None:
        """Return the number of stored teacher views, None for a teacher that runs in training."""
        return None if self.teacher_views == "online" else self.teacher_views

    @field_validator("teacher_views", mode="before")
    @classmethod
    def _online_or_number(cls, value: Any) -> Any:
        if value != "online" and (type(value) is not int or value < 1):
            raise setting_error(f"must be online or a whole number from 1, found {value!r}")
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
                    f"teacher_views: {views} are more than the {epochs} epochs, which use one each; lower it"
                )
        return self


STUDENTS: list[type[Method]] = []
"""Methods that students can name; `bingo.methods` fills both lists."""
TEACHERS: list[type[Method]] = []
"""Methods that teachers can name."""
