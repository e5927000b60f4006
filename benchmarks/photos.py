"""Synthetic images that compress and decode like photographs."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 375, 500
_DISCS = 150


def photo(number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Return image ``number``: uint8 (height, width, 3).

    Overlapping discs of many sizes and colours (the dead leaves model) give edges; a texture whose amplitude falls with
    the frequency gives the spectrum of photographs.
    """
    draw = np.random.default_rng(number)
    rows, columns = np.mgrid[:height, :width]
    picture = np.empty((height, width, 3), np.float32)
    picture[:] = draw.uniform(60, 200, 3)
    for _ in range(_DISCS):
        radius = 6 / draw.uniform(0.03, 1)  # P(radius) falls with its third power
        y, x = draw.uniform(0, height), draw.uniform(0, width)
        picture[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = draw.uniform(30, 225) + draw.normal(0, 25, 3)
    grey = _texture(draw, height, width)[..., None]
    colours = np.stack([_texture(draw, height, width) for _ in range(3)], axis=2)
    return (picture + 22 * grey + 4 * colours).clip(0, 255).astype(np.uint8)


def jpeg(number: int) -> bytes:
    """Return image ``number`` as a JPEG of about 100 kB."""
    file = io.BytesIO()
    Image.fromarray(photo(number)).save(file, "JPEG", quality=93)
    return file.getvalue()


def write_photos(folder: Path, count: int) -> None:
    """Write ``count`` JPEGs to ``folder``/photos, the one class folder there."""
    (folder / "photos").mkdir(parents=True)
    for number in range(count):
        (folder / "photos" / f"{number:04d}.jpg").write_bytes(jpeg(number))


def _texture(draw: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return noise of standard deviation 1 whose amplitude falls with the frequency."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(draw.standard_normal((height, width))) / np.maximum(frequency, 1 / width)
    noise = np.fft.irfft2(spectrum, (height, width))
    return (noise / noise.std()).astype(np.float32)
