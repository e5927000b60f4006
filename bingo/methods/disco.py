"""DisCo (Gao et al., ECCV 2022; Yuting-Gao/DisCo-pytorch): MoCo-v2, and final embeddings like the teacher's."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bingo.study.method import Distillation, DistillationHead, Step, View

if TYPE_CHECKING:
    from torch import Tensor


class Disco(Distillation):
    """DisCo: MoCo-v2's loss, and the squared distance to the teacher's embedding of each of both views."""

    method: Literal["disco"]
    """Name of the method."""
    head: DistillationHead = DistillationHead()
    """Its projection head."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """Momentum of the key encoder's moving average."""
    distance_weight: float = Field(default=32.0, ge=0)
    """Weight of the squared distances, means over the batch. The released code sums them over each GPU's part of the
    batch, so there the weight depends on the number of GPUs; 32 is its value for 256 images on 8 of them."""

    def views(self) -> dict[str, View]:
        """Return two views of the anchor, each seen by both networks."""
        return {"query": View("anchor", 0, teacher=True), "key": View("anchor", 1, teacher=True)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, teacher]

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return one queue, of the momentum student's keys."""
        return {"negatives": "student"}

    def ema_momentum(self) -> float:
        """Return the key encoder's momentum."""
        return self.key_momentum

    def loss(self, step: Step) -> "dict[str, Tensor]":
        r"""Return :math:`CE(s(x_1), s_{EMA}(x_2)) + w (|T(x_1) - s(x_1)|^2 + |T(x_2) - s(x_2)|^2)`."""
        from bingo.losses.distance import squared_distance
        from bingo.losses.info_nce import info_nce, queue_logsumexp

        first, second = (step.student(step.images[name]) for name in ("query", "key"))  # (B, D)
        key = step.momentum(step.images["key"])  # (B, D)
        negatives = queue_logsumexp(first, step.queue("negatives"), self.temperature)  # (B,)
        contrast = info_nce(first, key, negatives, self.temperature)
        distance = squared_distance(first, step.teacher("query")) + squared_distance(second, step.teacher("key"))
        step.enqueue("negatives", key)
        return {"loss": contrast + self.distance_weight * distance, "contrast": contrast, "distance": distance}
