"""CutMix (Yun et al., ICCV 2019): a box of one image pasted into another."""

import math
from dataclasses import dataclass

from torch import Tensor

from bingo.philox import Stream, uniform


@dataclass(frozen=True)
class CutMixBox:
    """Where the second image shows."""

    top: int
    bottom: int
    left: int
    right: int
    share: float
    """Share of the area that is left of the first image, lambda."""


def draw_box(seed: int, epoch: int, step: int, size: int) -> CutMixBox:
    r"""Draw one box for a whole batch of images of ``size`` x ``size`` pixels, a pure function of its arguments.

    :math:`\lambda \sim Beta(2, 2)`, as BINGO's released code has it; the box of area :math:`1 - \lambda` has its centre
    anywhere, is cut at the border, and lambda is computed again from what is left.
    """
    u, y, x = uniform(seed, Stream.CUTMIX, [step], epoch, 0, 3)[0]
    # Inverse of Beta(2, 2)'s distribution function, 3 l^2 - 2 l^3 = u, solved by trisecting an angle.
    drawn = 0.5 - math.sin(math.asin(1 - 2 * u) / 3)
    half = int(size * math.sqrt(1 - drawn)) // 2
    centre_y, centre_x = int(y * size), int(x * size)
    top, bottom = max(centre_y - half, 0), min(centre_y + half, size)
    left, right = max(centre_x - half, 0), min(centre_x + half, size)
    return CutMixBox(top, bottom, left, right, 1 - (bottom - top) * (right - left) / size**2)


def cutmix(first: Tensor, second: Tensor, box: CutMixBox) -> Tensor:
    """Return ``first`` (B, C, S, S) with the box of ``second`` (B, C, S, S) pasted into it; both stay as they are."""
    mixed = first.clone()
    mixed[:, :, box.top : box.bottom, box.left : box.right] = second[:, :, box.top : box.bottom, box.left : box.right]
    return mixed
