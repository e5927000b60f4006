import inspect
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import bingo
from bingo.artifacts.tensors import write_tensors
from bingo.data.decode import decode, pixels, upright
from bingo.data.images import open_images
from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.export.transform import CentreView
from bingo.models.backbone import build_backbone
from bingo.models.checkpoint import load_teacher, write_teacher
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from bingo.study.sections import Backbone, Preprocessing
from bingo.training.embed import embed
from tests.importers.source_networks import settled
from tests.stage import run_stage

torch.set_num_threads(1)
CPU = torch.device("cpu")
SPEC = Backbone(architecture="resnet10", stem="small", width=1 / 16)
VIEW = Preprocessing(size=16, resize=20, mean=[0.3, 0.4, 0.5], std=[0.1, 0.2, 0.3])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return settled(build_backbone(SPEC))


@pytest.fixture
def teacher_path(network, tmp_path):
    said = {"method": "moco", "provenance": {"settings": {"preprocessing": VIEW.network_input().model_dump()}}}
    write_teacher(tmp_path / "teacher.safetensors", SPEC, network.state_dict(), {}, said)
    return tmp_path / "teacher.safetensors"


def student(network, path, **said):
    write_tensors(path, network.state_dict(), {"backbone": SPEC.model_dump(), "method": "moco", **said})
    return path


@pytest.fixture
def photos(tmp_path):
    """A folder of images of several sizes, formats and modes, two of them lying on their sides."""
    noise = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, (mode, suffix) in enumerate(
        [("RGB", "png"), ("L", "png"), ("RGB", "jpg"), ("L", "jpg"), ("P", "gif"), ("RGBA", "png"), ("P", "png")]
    ):
        image = Image.fromarray(noise.integers(0, 256, (30 + number, 27 - number, 3), dtype=np.uint8)).convert(mode)
        image.save(folder / f"{number}.{suffix}")
    turned = Image.Exif()
    turned[0x0112] = 6
    image = Image.fromarray(noise.integers(0, 256, (24, 40, 3), dtype=np.uint8))
    image.save(folder / "turned.jpg", exif=turned)
    image.save(folder / "turned.webp", lossless=True, exif=turned)
    return folder


def embedded(data, teacher_path, tmp_path):
    """The listing of some images, and their features as embeddings and evaluations have them."""
    path = tmp_path / "listing.h5"
    run_stage(DataJob, split="train", data=data, output=path)
    listing, network = read_listing(path, "train"), load_teacher(teacher_path, CPU).backbone
    return listing, torch.cat(list(embed(network, open_images(listing), VIEW, CPU, 0, "bilinear")))


def test_features_of_files_are_those_of_the_pipeline(photos, teacher_path, tmp_path):
    data = FolderData(source="folder", train=str(photos), labels="none")
    listing, expected = embedded(data, teacher_path, tmp_path)
    backbone = bingo.load_backbone(teacher_path, resize=20)
    views = [backbone.transform(Image.open(listing.path(i))) for i in range(len(listing))]
    assert [(view.dtype, view.shape) for view in views] == [(torch.float32, (3, 16, 16))] * 9
    torch.testing.assert_close(backbone(torch.stack(views)), expected, rtol=1e-5, atol=1e-5)


def test_features_of_arrays_are_those_of_the_pipeline(teacher_path, tmp_path):
    listing, expected = embedded(DemoData(source="demo", max_train=12), teacher_path, tmp_path)
    grey = open_images(listing).fetch(np.arange(12))[:, 0].numpy()
    backbone = bingo.load_backbone(str(teacher_path), "cpu", resize=20)
    views = torch.stack([backbone.transform(Image.fromarray(image)) for image in grey])
    torch.testing.assert_close(backbone(views), expected, rtol=1e-5, atol=1e-5)


def test_a_student_is_loaded_frozen_with_what_its_training_says(network, tmp_path):
    said = {"settings": {"preprocessing": VIEW.network_input().model_dump(), "seed": 0}}
    backbone = bingo.load_backbone(student(network, tmp_path / "backbone.safetensors", provenance=said))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(backbone(images), network(images))
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.transform.preprocessing == VIEW.model_copy(update={"resize": round(16 * 256 / 224)})


def test_what_an_exported_file_says_of_resizing_is_taken(network, tmp_path):
    path = student(network, tmp_path / "exported.safetensors", preprocessing=VIEW.model_dump())
    assert bingo.load_backbone(path).transform.preprocessing == VIEW
    assert bingo.load_backbone(path, resize=30).transform.preprocessing.resize == 30


def test_a_file_that_does_not_say_it_is_taken_for_imagenets_with_a_warning(network, tmp_path, caplog):
    path = student(network, tmp_path / "imported.safetensors")
    assert bingo.load_backbone(path).transform.preprocessing == Preprocessing()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"{path}: does not say what it was trained on")


def test_a_shorter_side_that_is_smaller_than_the_input_is_refused(teacher_path):
    with pytest.raises(BingoError, match=r"resize 12: resize must be at least size, 16 px$") as caught:
        bingo.load_backbone(teacher_path, resize=12)
    assert str(caught.value).startswith(f"{teacher_path}: ")


def encoded(image, kind):
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"),
    [(mode, "png") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")] + [(mode, "jpeg") for mode in ("L", "CMYK")],
)
def test_pixels_of_a_pil_image_are_those_that_are_decoded_from_its_file(mode, kind):
    ramp = np.add.outer(np.linspace(0, 200, 12), np.linspace(0, 55, 17))
    if mode == "I;16":
        image = Image.fromarray((ramp * 256 + 77).astype(np.uint16))
    else:
        image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp / 2], 2).astype(np.uint8)).convert(mode)
    assert image.mode == mode
    content = encoded(image, kind)
    opened = Image.open(io.BytesIO(content))
    assert torch.equal(pixels(upright(opened)), decode(content))
    assert opened.mode == mode


def test_a_pil_image_is_turned_upright_and_stays_as_it_was(photos):
    image, view = Image.open(photos / "turned.jpg"), CentreView(VIEW)
    turned = view(image)
    assert (image.size, image.getexif()[0x0112]) == ((40, 24), 6)
    bare = Image.fromarray(np.asarray(image)).transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(turned, view(bare))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode):
    with pytest.raises(BingoError, match=f"^image: mode {mode} has no range of grey levels; convert it"):
        CentreView(VIEW)(Image.new(mode, (24, 24)))


def test_a_truncated_pil_image_is_refused(photos):
    content = (photos / "turned.jpg").read_bytes()
    with pytest.raises(BingoError, match=r"^image: truncated or damaged"):
        CentreView(VIEW)(Image.open(io.BytesIO(content[:-50])))


def test_the_package_loads_no_torch_until_a_backbone_is_asked_for():
    code = "import sys, bingo; sys.exit('torch' in sys.modules or not callable(bingo.load_backbone))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert list(inspect.signature(bingo.load_backbone).parameters) == ["path", "device", "resize"]
