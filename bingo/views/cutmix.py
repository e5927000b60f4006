"""CutMix (Yun et al., ICCV 2019): paste a box of one image into another."""

import math
from dataclasses import dataclass

from torch import Tensor

from bingo.philox import Stream, uniform


@dataclass(frozen=True)
class CutMixBox:
    """The box, in pixels, that shows the second image."""

    top: int
    bottom: int
    left: int
    right: int
    share: float
    """Lambda: share of the area that shows the first image."""


def draw_box(seed: int, epoch: int, step: int, size: int) -> CutMixBox:
    r"""Draw one box for a batch of images of ``size`` x ``size`` pixels. A pure function of its arguments.

    $\lambda \sim Beta(2, 2)$, as in BINGO's released code. The box has area $1 - \lambda$ and a uniformly
    drawn centre. It is clipped at the border, and lambda is recomputed from the clipped box.
    """
    u, y, x = uniform(seed, Stream.CUTMIX, [step], epoch, 0, 3)[0]
    # Inverse CDF of Beta(2, 2): the root of 3 l^2 - 2 l^3 = u, by the trigonometric solution of the cubic.
    lam = 0.5 - math.sin(math.asin(1 - 2 * u) / 3)
    half = int(size * math.sqrt(1 - lam)) // 2
    centre_y, centre_x = int(y * size), int(x * size)
    top, bottom = max(centre_y - half, 0), min(centre_y + half, size)
    left, right = max(centre_x - half, 0), min(centre_x + half, size)
    return CutMixBox(top, bottom, left, right, 1 - (bottom - top) * (right - left) / size**2)


def cutmix(first: Tensor, second: Tensor, box: CutMixBox) -> Tensor:
    """Return a copy of ``first`` (B, C, S, S) with ``box`` replaced by the pixels of ``second`` (B, C, S, S)."""
    mixed = first.clone()
    mixed[:, :, box.top : box.bottom, box.left : box.right] = second[:, :, box.top : box.bottom, box.left : box.right]
    return mixed
