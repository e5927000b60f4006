import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter

from bingo.study.images import Data
from bingo.study.jobs import DataJob
from tests.stage import run_stage

torch.set_num_threads(1)


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
    """Run the data stage with the given keys of `data`; return the path of the split's listing."""

    def listed(output=tmp_path / "listing.h5", threads=2, split="train", key="data", **data):
        data = {name: str(value) if name in ("train", "val", "root") else value for name, value in data.items()}
        data = TypeAdapter(Data).validate_python({"source": "folder", **data})  # as a study has it
        run_stage(DataJob, threads, split="train", data=data, key=key, output=output)
        if split == "train":
            return output
        val = output.with_name("val-listing.h5")
        run_stage(DataJob, threads, split="val", data=data, key=key, train_listing=output, output=val)
        return val

    return listed
