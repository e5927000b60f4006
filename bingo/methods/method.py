"""What the engine asks of a method."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from bingo.models.backbone import ResNet


@dataclass(frozen=True)
class ViewRequest:
    """One view that a method needs of every anchor: of the anchor itself or of a member of its bag."""

    image: Literal["anchor", "positive"]
    view: int


class Method(nn.Module, ABC):
    """A trainable `backbone` and `head`, and a loss over views.

    Modules that are part of the training state (queue, momentum encoder) are registered; a frozen teacher is not.
    """

    views: tuple[ViewRequest, ...]
    """Views of a batch, in the order in which `forward` receives them."""
    backbone: ResNet
    head: nn.Module

    @abstractmethod
    def forward(self, views: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, a scalar, and named scalars to log, for views of (B, 3, S, S)."""

    @abstractmethod
    def after_step(self) -> None:
        """Update what gradients do not; called once after each optimizer step."""
