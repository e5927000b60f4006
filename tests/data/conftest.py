import numpy as np
import pytest
from PIL import Image

from bingo.data.listing import write_listing
from bingo.jobs import DataJob


@pytest.fixture
def save_image():
    """Write image number ``number``, told from every other by its noise, in the format of the suffix."""

    def save(path, number=0, size=(20, 16)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return save


@pytest.fixture
def list_images(tmp_path):
    """Run the data stage with the given keys of `data`; return the listing's path."""

    def listed(output=tmp_path / "listing.h5", threads=2, **data):
        data = {key: str(value) if key in ("train", "val", "root") else value for key, value in data.items()}
        write_listing(DataJob(version=1, data={"source": "folder", **data}), output, threads)
        return output

    return listed
