"""MoCo-v2 (Chen et al. 2020; facebookresearch/moco): contrast a query with its key and a queue of past keys."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bingo.study.method import Method, Step, View
from bingo.study.sections import StrictModel

if TYPE_CHECKING:
    from torch import Tensor


class Head(StrictModel):
    """Projection head: Linear, ReLU, Linear."""

    hidden: int | None = Field(default=None, ge=1)
    """Width of the hidden layer. Null for the width of the backbone's features."""
    dim: int = Field(default=128, ge=2)
    """Width of the embedding."""


class Moco(Method):
    """MoCo-v2: contrasts a query with the momentum encoder's key and a queue of past keys.

    The momentum encoder's batch norm runs in train mode, and its running statistics are not averaged. Several processes
    shuffle the key images among them (shuffle-BN), so that batch statistics do not reveal the positive pairs. A single
    process does not shuffle.
    """

    method: Literal["moco"]
    """Name of the method."""
    head: Head = Head()
    """Projection head."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """Momentum of the key encoder."""

    def views(self) -> dict[str, View]:
        """Return two views of the anchor."""
        return {"query": View("anchor", 0), "key": View("anchor", 1)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, self.head.dim]

    def ema_momentum(self) -> float:
        """Return the key encoder's momentum."""
        return self.key_momentum

    def loss(self, step: Step) -> "dict[str, Tensor]":
        r"""Return $CE(s(x_1), s_{EMA}(x_2))$, and enqueue the keys."""
        from bingo.losses.info_nce import info_nce, queue_logsumexp

        query = step.student(step.images["query"])  # (B, D)
        key = step.momentum(step.images["key"])  # (B, D)
        negatives = queue_logsumexp(query, step.queue("negatives"), self.temperature)  # (B,)
        loss = info_nce(query, key, negatives, self.temperature)
        step.enqueue("negatives", key)
        return {"loss": loss}


class TrainedTeacher(Moco):
    """A backbone pretrained by MoCo-v2."""

    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the initial weights, the order of images and the views."""

    def own_seed(self) -> int:
        """Return the teacher's seed."""
        return self.seed
