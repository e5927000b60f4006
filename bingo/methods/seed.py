"""SEED (Fang et al., ICLR 2021; jacobswan1/SEED): the student's similarities to a queue imitate the teacher's."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bingo.study.method import Distillation, DistillationHead, Step, View

if TYPE_CHECKING:
    from torch import Tensor


class SeedHead(DistillationHead):
    """Projection head of a student: Linear, ReLU, Linear, as wide at its end as the teacher's output."""

    hidden: int | None = Field(default=None, ge=1)
    """Width of the hidden layer; null for the backbone's own width."""


class Seed(Distillation):
    """SEED: similarities of the student to the teacher's output and to a queue imitate those of the teacher."""

    method: Literal["seed"]
    """Name of the method."""
    head: SeedHead = SeedHead()
    """Its projection head."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature of the student."""
    teacher_temperature: float = Field(default=1e-4, gt=0)
    """Softmax temperature of the teacher."""

    def views(self) -> dict[str, View]:
        """Return the one view that both networks see."""
        return {"image": View("anchor", 0, teacher=True)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, teacher]

    def loss(self, step: Step) -> "dict[str, Tensor]":
        """Return the cross-entropy of the two similarity distributions; the teacher's outputs join the queue."""
        from bingo.losses.seed import seed_loss

        student, target = step.student(step.images["image"]), step.teacher("image")  # (B, D)
        loss = seed_loss(student, target, step.queue("negatives"), self.temperature, self.teacher_temperature)
        step.enqueue("negatives", target)
        return {"loss": loss}
