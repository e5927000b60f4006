"""Augmentation recipes. A recipe never changes once it has a name."""

from dataclasses import dataclass, replace

from bingo.study.sections import Interpolation, RecipeName

Range = tuple[float, float]


@dataclass(frozen=True)
class Recipe:
    """Augmentations, with their probabilities and strengths.

    A jitter strength is the half-width of an interval: brightness 0.4 draws factors from [0.6, 1.4]. A strength or
    probability of 0 disables the step.
    """

    crop_scale: Range
    """Area of the crop as a fraction of the image, drawn uniformly."""
    crop_ratio: Range = (3 / 4, 4 / 3)
    """Aspect ratio of the crop, width / height, drawn log-uniformly."""
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
    """Standard deviation of the blur in pixels, drawn uniformly."""
    interpolation: Interpolation = "bilinear"
    """Interpolation for resizing crops; always antialiased."""


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
    # For colour images of about 32 px, as in MoCo's demo on CIFAR-10.
    "cifar": replace(_PAPER, blur=0.0),
    # For grey images of about 32 px, in which small crops and blur leave little to recognise.
    "small": Recipe(crop_scale=(0.3, 1.0), jitter=0.8, brightness=0.4, contrast=0.4),
    # For CompRess (UMBCvision/CompRess) and linear probes (facebookresearch/moco, main_lincls.py).
    "crop-flip": Recipe(crop_scale=(0.08, 1.0)),
}
