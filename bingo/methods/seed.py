"""SEED (Fang et al., ICLR 2021; jacobswan1/SEED): match the student's similarities to a queue with the teacher's."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bingo.study.method import Distillation, DistillationHead, Step, View

if TYPE_CHECKING:
    from torch import Tensor


class SeedHead(DistillationHead):
    """Projection head of a student: Linear, ReLU, Linear; the output is as wide as the teacher's."""

    hidden: int | None = Field(default=None, ge=1)
    """Width of the hidden layer. Null for the width of the backbone's features."""


class Seed(Distillation):
    """SEED: matches the student's similarities to the teacher's output and a queue with those of the teacher."""

    method: Literal["seed"]
    """Name of the method."""
    head: SeedHead = SeedHead()
    """Projection head of the student."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature of the student."""
    teacher_temperature: float = Field(default=1e-4, gt=0)
    """Softmax temperature of the teacher."""

    def views(self) -> dict[str, View]:
        """Return one view, seen by both networks."""
        return {"image": View("anchor", 0, teacher=True)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, teacher]

    def loss(self, step: Step) -> "dict[str, Tensor]":
        """Return the cross-entropy of the two similarity distributions, and enqueue the teacher's outputs."""
        from bingo.losses.seed import seed_loss

        student, target = step.student(step.images["image"]), step.teacher("image")  # (B, D) each
        loss = seed_loss(student, target, step.queue("negatives"), self.temperature, self.teacher_temperature)
        step.enqueue("negatives", target)
        return {"loss": loss}
