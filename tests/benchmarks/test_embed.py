import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.embed import forward, random_teacher
from benchmarks.photos import write_photos
from benchmarks.views import listed
from bingo.models.checkpoint import load_teacher
from bingo.study.jobs import EmbeddingsJob
from bingo.study.sections import Backbone, Preprocessing
from tests.stage import run_stage

torch.set_num_threads(1)
pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def test_embeddings_are_those_of_the_bare_network_on_torchvisions_transform(tmp_path):
    write_photos(tmp_path / "train", 3)
    listed(tmp_path)
    teacher = random_teacher(tmp_path / "teacher.safetensors", Backbone(architecture="resnet10", width=0.25))
    preprocessing = Preprocessing(size=64, resize=80)
    files = {"listing": tmp_path / "listing.h5", "teacher": teacher, "output": tmp_path / "out.h5"}
    run_stage(EmbeddingsJob, preprocessing=preprocessing, **files)
    transform = transforms.Compose(
        [
            transforms.Resize(preprocessing.resize),
            transforms.CenterCrop(preprocessing.size),
            transforms.ToTensor(),
            transforms.Normalize(preprocessing.mean, preprocessing.std),
        ]
    )
    pictures = [Image.open(path) for path in sorted((tmp_path / "train" / "photos").iterdir())]
    with torch.inference_mode():
        expected = load_teacher(teacher, CPU).backbone(torch.stack([transform(picture) for picture in pictures]))
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_allclose(file["embedding"][:], expected, rtol=0.02, atol=0.02 * float(expected.max()))


def test_the_forward_pass_takes_as_many_images_as_it_is_told():
    seen = []
    forward(lambda batch: seen.append(len(batch)), torch.zeros(4, 3, 2, 2), 10)
    assert seen == [4, 4, 2]
