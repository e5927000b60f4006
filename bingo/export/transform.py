"""How an image becomes the input of a trained network."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from bingo.data.decode import BadImageError, pixels, upright
from bingo.errors import BingoError
from bingo.study.sections import Preprocessing
from bingo.views.apply import centre_crop, normalise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CentreView:
    """From a PIL image to what a network sees of it in embeddings and evaluations.

    Of JPEGs of a megapixel or more the pipeline decodes fewer pixels, so that its views differ from these by a few grey
    levels (`bingo.data.pictures`).
    """

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the normalised centre of an image: float32 (3, S, S).

        Raises:
            BingoError: the image is damaged, or its mode has no known range, as F.
        """
        try:
            shown = pixels(upright(image))
        except BadImageError as error:
            raise BingoError(f"image: {error}") from error
        view = centre_crop(shown[None], self.preprocessing, "bilinear")  # (1, 3, S, S) uint8
        return normalise(view / 255, self.preprocessing)[0].contiguous()


def recorded_preprocessing(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a network's file says of its input, None if nothing, as that of an imported teacher."""
    settings = metadata.get("provenance", {}).get("settings", {})
    return metadata.get("preprocessing") or settings.get("preprocessing")


def preprocessing_of(metadata: Mapping[str, Any], resize: int | None, path: Path) -> Preprocessing:
    """Return how images become the input of a trained network.

    Args:
        metadata: what its file says of itself.
        resize: shorter side before the centre is cut out; None for what the file says, else 256/224 of the size.
        path: the file, for messages.

    Raises:
        BingoError: ``resize`` is smaller than the network's input.
    """
    said = recorded_preprocessing(metadata)
    if said is None:
        log.warning("%s: does not say what it was trained on; taken for 224 px and ImageNet's mean and deviation", path)
        said = Preprocessing().network_input().model_dump()
    try:
        return Preprocessing.model_validate(said if resize is None else {**said, "resize": resize})
    except ValidationError as error:
        raise BingoError(f"{path}: resize {resize}: {error.errors()[0]['msg']}, {said['size']} px") from error
