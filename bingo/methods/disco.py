"""DisCo (Gao et al., ECCV 2022; Yuting-Gao/DisCo-pytorch): MoCo-v2, plus the distance to the teacher's embeddings."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bingo.study.method import Distillation, DistillationHead, Step, View

if TYPE_CHECKING:
    from torch import Tensor


class Disco(Distillation):
    """DisCo: the MoCo-v2 loss plus the squared distance to the teacher's embedding, for both views."""

    method: Literal["disco"]
    """Name of the method."""
    head: DistillationHead = DistillationHead()
    """Projection head of the student."""
    temperature: float = Field(default=0.2, gt=0)
    """Softmax temperature."""
    key_momentum: float = Field(default=0.999, ge=0, le=1)
    """Momentum of the key encoder."""
    distance_weight: float = Field(default=32.0, ge=0)
    """Weight of the squared distance, averaged over the batch. The released code sums it over the images of each GPU,
    so its weight depends on the number of GPUs. The default 32 matches 256 images on 8 GPUs."""

    def views(self) -> dict[str, View]:
        """Return two views of the anchor, both seen by both networks."""
        return {"query": View("anchor", 0, teacher=True), "key": View("anchor", 1, teacher=True)}

    def head_widths(self, features: int, teacher: int) -> list[int]:
        """Return hidden and output width."""
        return [self.head.hidden or features, teacher]

    def queues(self) -> dict[str, Literal["student", "teacher"]]:
        """Return one queue, filled with the momentum encoder's outputs."""
        return {"negatives": "student"}

    def ema_momentum(self) -> float:
        """Return the key encoder's momentum."""
        return self.key_momentum

    def loss(self, step: Step) -> "dict[str, Tensor]":
        r"""Return $CE(s(x_1), s_{EMA}(x_2)) + w (|T(x_1) - s(x_1)|^2 + |T(x_2) - s(x_2)|^2)$."""
        from bingo.losses.distance import squared_distance
        from bingo.losses.info_nce import info_nce, queue_logsumexp

        first, second = (step.student(step.images[name]) for name in ("query", "key"))  # (B, D) each
        key = step.momentum(step.images["key"])  # (B, D)
        negatives = queue_logsumexp(first, step.queue("negatives"), self.temperature)  # (B,)
        contrast = info_nce(first, key, negatives, self.temperature)
        distance = squared_distance(first, step.teacher("query")) + squared_distance(second, step.teacher("key"))
        loss = contrast + self.distance_weight * distance
        step.enqueue("negatives", key)
        return {"loss": loss, "contrast": contrast, "distance": distance}
