"""CompRess (Koohpayegani et al., NeurIPS 2020; UMBCvision/CompRess): similarities to a queue of pooled features."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from bingo.study.method import Distillation, Layer, Step, View
from bingo.study.sections import RecipeName, Schedule, Steps, Training

if TYPE_CHECKING:
    from torch import Tensor


class CompressTraining(Training):
    """SGD with CompRess's schedule: 130 epochs, the learning rate falling twice."""

    epochs: int = Field(default=130, ge=1)
    """Passes over the training images."""
    lr: float = Field(default=0.01, gt=0)
    """Learning rate at the start of the schedule."""
    schedule: Schedule = Steps(milestones=[90, 120], factor=0.2)
    """`cosine`: half a cosine to zero, a step per epoch; or a section with `milestones` and `factor`."""
    views: RecipeName = "crop-flip"
    """Recipe of random views."""


class Compress(Distillation):
    """CompRess: similarities of the student's features to a queue imitate those of the teacher's features."""

    method: Literal["compress"]
    """Name of the method."""
    variant: Literal["2q", "1q"] = "2q"
    """`2q`: no head, and a second queue filled by the student's moving average; `1q`: a linear head to the teacher's
    width, and the teacher's queue for both."""
    training: CompressTraining = CompressTraining()
    """Optimizer, schedule and views."""
    temperature: float = Field(default=0.04, gt=0)
    """Softmax temperature of both networks."""
    queue_size: int = Field(default=128000, ge=1)
    """Number of past features that are compared with."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """`2q`: momentum of the student's moving average."""

    layer: ClassVar[Layer] = "features"

    def loss_name(self) -> str:
        """Return method and variant."""
        return f"{self.method} {self.variant}"

    def views(self) -> dict[str, View]:
        """Return the one view that both networks see."""
        return {"image": View("anchor", 0, teacher=True)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return no layer for `2q`, one for `1q`."""
        return [] if self.variant == "2q" else [teacher]

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return the teacher's queue, and for `2q` the student's."""
        return {"teacher": "teacher"} if self.variant == "1q" else {"teacher": "teacher", "student": "student"}

    def ema_momentum(self) -> float | None:
        """Return the moving average's momentum for `2q`."""
        return self.key_momentum if self.variant == "2q" else None

    def loss(self, step: Step) -> "dict[str, Tensor]":
        r"""Return :math:`KL(softmax(t Q_t / \tau) || softmax(s Q_s / \tau))`; features join the queues."""
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
