"""Image preprocessing for a trained network."""

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
    """Transform of a PIL image to the network input of embeddings and evaluations.

    The pipeline decodes JPEGs of a megapixel or more at reduced size, so its views differ by a few grey levels
    (`bingo.data.pictures`).
    """

    preprocessing: Preprocessing

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the normalised centre of an image: float32 (3, S, S).

        Raises:
            BingoError: the image is damaged, or the value range of its mode is unknown (for example F).
        """
        try:
            decoded = pixels(upright(image))
        except BadImageError as error:
            raise BingoError(f"image: {error}") from error
        view = centre_crop(decoded[None], self.preprocessing, "bilinear")  # (1, 3, S, S) uint8
        return normalise(view / 255, self.preprocessing)[0].contiguous()


def recorded_preprocessing(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the preprocessing recorded in a network's metadata; None if missing, as for imported teachers."""
    settings = metadata.get("provenance", {}).get("settings", {})
    return metadata.get("preprocessing") or settings.get("preprocessing")


def preprocessing_of(metadata: Mapping[str, Any], resize: int | None, path: Path) -> Preprocessing:
    """Return the preprocessing of a trained network; missing values default to ImageNet's.

    Args:
        metadata: metadata of the file.
        resize: shorter side in pixels before the centre crop; None for the recorded value, else 256/224 of the size.
        path: the file, for messages.

    Raises:
        BingoError: ``resize`` is smaller than the network's input.
    """
    settings = recorded_preprocessing(metadata)
    if settings is None:
        log.warning("%s: has no recorded preprocessing; assuming 224 px and ImageNet's mean and deviation", path)
        settings = Preprocessing().network_input().model_dump()
    try:
        return Preprocessing.model_validate(settings if resize is None else {**settings, "resize": resize})
    except ValidationError as error:
        raise BingoError(f"{path}: resize {resize}: {error.errors()[0]['msg']}, {settings['size']} px") from error
