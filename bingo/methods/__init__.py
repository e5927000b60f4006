"""Self-supervised methods: each says which views it needs and turns a batch of views into a loss."""

from typing import TYPE_CHECKING

from bingo.config import Bingo, Moco
from bingo.methods.bingo import BingoMethod
from bingo.methods.method import Method
from bingo.methods.moco import MocoMethod

if TYPE_CHECKING:
    from bingo.models.checkpoint import Teacher


def build_method(settings: Moco | Bingo, teacher: "Teacher | None") -> Method:
    """Return the method that a study names, with fresh random weights from torch's generator.

    Args:
        settings: an entry of `teachers` or `students`.
        teacher: the frozen teacher of a method that distils.
    """
    if isinstance(settings, Bingo):
        assert teacher is not None
        return BingoMethod(settings, teacher)
    return MocoMethod(settings)
