"""CompRess (Koohpayegani et al., NeurIPS 2020; UMBCvision/CompRess): match similarities to a queue of features."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from bingo.study.method import Distillation, Layer, Step, View
from bingo.study.sections import RecipeName, Schedule, Steps, Training

if TYPE_CHECKING:
    from torch import Tensor


class CompressTraining(Training):
    """SGD with CompRess's schedule: 130 epochs, two learning-rate drops."""

    epochs: int = Field(default=130, ge=1)
    """Passes over the training images."""
    lr: float = Field(default=0.01, gt=0)
    """Learning rate at the start of the schedule."""
    schedule: Schedule = Steps(milestones=[90, 120], factor=0.2)
    """`cosine`: cosine decay to zero, updated each epoch. Or a section with `milestones` and `factor`."""
    views: RecipeName = "crop-flip"
    """Augmentation recipe."""


class Compress(Distillation):
    """CompRess: matches the similarities of the student's features to a queue with those of the teacher's features."""

    method: Literal["compress"]
    """Name of the method."""
    variant: Literal["2q", "1q"] = "2q"
    """`2q`: no head, and a second queue filled by the student's momentum encoder. `1q`: a linear head to the teacher's
    width, and the teacher's queue for both networks."""
    training: CompressTraining = CompressTraining()
    """Optimizer, schedule and augmentation."""
    temperature: float = Field(default=0.04, gt=0)
    """Softmax temperature of both networks."""
    queue_size: int = Field(default=128000, ge=1)
    """Number of features in the queue."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """`2q`: momentum of the momentum encoder."""

    layer: ClassVar[Layer] = "features"

    def loss_name(self) -> str:
        """Return method and variant."""
        return f"{self.method} {self.variant}"

    def views(self) -> dict[str, View]:
        """Return one view, seen by both networks."""
        return {"image": View("anchor", 0, teacher=True)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return no layer for `2q`, one layer for `1q`."""
        return [] if self.variant == "2q" else [teacher]

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return the teacher's queue and, for `2q`, the student's."""
        return {"teacher": "teacher"} if self.variant == "1q" else {"teacher": "teacher", "student": "student"}

    def ema_momentum(self) -> float | None:
        """Return the momentum for `2q`, None for `1q`."""
        return self.key_momentum if self.variant == "2q" else None

    def loss(self, step: Step) -> "dict[str, Tensor]":
        r"""Return $KL(softmax(t Q_t / \tau) || softmax(s Q_s / \tau))$, and enqueue the features."""
        from bingo.losses.compress import compress_loss

        images = step.images["image"]
        student, target = step.student(images), step.teacher("image")  # (B, D_s), (B, D_t)
        if self.variant == "2q":
            key = step.momentum(images)  # (B, D_s)
            loss = compress_loss(student, target, step.queue("student"), step.queue("teacher"), self.temperature)
            step.enqueue("student", key)
        else:
            queue = step.queue("teacher")
            loss = compress_loss(student, target, queue, queue, self.temperature)
        step.enqueue("teacher", target)
        return {"loss": loss}
