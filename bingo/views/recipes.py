"""Recipes of random views, each a frozen name."""

from dataclasses import dataclass, replace

from bingo.study.sections import Interpolation, RecipeName

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """What may happen to an image, and how strongly.

    Strengths of jitter are half-widths: brightness 0.4 draws factors from [0.6, 1.4]. A strength or probability
    of zero leaves the step out.
    """

    crop_scale: Range
    """Share of the image's area that a crop keeps."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width by height, drawn log-uniformly."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.0
    """Probability of colour jitter."""
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    """Probability of grayscale."""
    blur: float = 0.0
    """Probability of Gaussian blur."""
    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the blur, in pixels."""
    interpolation: Interpolation = "bilinear"
    """How a crop is resized; always antialiased."""


# MoCo-v2 (facebookresearch/moco, main_moco.py --aug-plus), which BINGO uses unchanged.
_PAPER = Recipe(
    crop_scale=(0.2, 1.0),
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    grayscale=0.2,
    blur=0.5,
)

RECIPES: dict[RecipeName, Recipe] = {
    "paper": _PAPER,
    # For colour images of some 32 px, as in MoCo's demo on CIFAR-10.
    "cifar": replace(_PAPER, blur=0.0),
    # For grey images of some 32 px, where small crops and blur leave little to recognise.
    "small": Recipe(crop_scale=(0.3, 1.0), jitter=0.8, brightness=0.4, contrast=0.4),
    # CompRess (UMBCvision/CompRess), and training of linear probes (facebookresearch/moco, main_lincls.py).
    "crop-flip": Recipe(crop_scale=(0.08, 1.0)),
}
