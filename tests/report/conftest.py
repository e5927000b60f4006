import xml.etree.ElementTree as ET
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

from bingo.artifacts.tensors import write_tensors
from bingo.data.listing import read_listing
from bingo.models.backbone import build_backbone
from bingo.study.bags import KnnBag
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import BagsJob, DataJob, EmbeddingsJob
from bingo.study.sections import Backbone, Preprocessing
from tests.stage import run_stage

torch.set_num_threads(1)

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def drawn(monkeypatch):
    """Call a drawing function of a module without saving: the figure. ``after`` are arguments after the outputs."""

    def draw(module, function, *arguments, after=()):
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(module, "save", lambda figure, _: figures.append(figure))
            getattr(module, function)(*arguments, [], *after)
        return figures[0]

    return draw


@pytest.fixture
def faults_of_layout():
    """List what is illegible in a figure: text that is too small, cut off, or in the way of other text."""

    def faults(figure):
        FigureCanvasAgg(figure).draw()
        page = figure.bbox
        unseen = {label for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in _unseen(axis)}
        texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        texts = [text for text in texts if text not in unseen]
        boxes = np.array([text.get_window_extent().extents for text in texts])
        found = [f"small: {text.get_text()}" for text in texts if text.get_fontsize() < 7]
        outside = (boxes[:, :2] < page.p0 - 1).any(axis=1) | (boxes[:, 2:] > page.p1 + 1).any(axis=1)
        found += [f"cut off: {texts[i].get_text()}" for i in np.flatnonzero(outside)]
        starts, ends = boxes[:, None, :2] + 1, boxes[None, :, 2:] - 1  # glyphs do not fill their boxes
        before = (starts < ends).all(axis=-1)
        pairs = np.argwhere(np.triu(before & before.T, 1))
        found += [f"over one another: {texts[a].get_text()}, {texts[b].get_text()}" for a, b in pairs]
        return found

    return faults


def _unseen(axis):
    """Labels of ticks beyond the axis's ends, which matplotlib keeps but does not draw."""
    seen = set(axis._update_ticks())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return {label for tick in ticks if tick not in seen for label in (tick.label1, tick.label2)}


@pytest.fixture
def texts():
    """Return every text of an SVG, which must be well-formed."""

    def read(path):
        root = ET.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        return ["".join(element.itertext()).strip() for element in root.iter(f"{SVG}text")]

    return read


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """Files of a small study: images, a teacher of random weights, its embeddings and bags."""
    folder = tmp_path_factory.mktemp("study")
    names = ("listing", "other_listing", "embeddings", "bags")
    files = SimpleNamespace(teacher=folder / "teacher.safetensors", **{name: folder / f"{name}.h5" for name in names})
    files.preprocessing = Preprocessing(size=16, resize=16)
    for path, count in ((files.listing, 60), (files.other_listing, 59)):
        run_stage(DataJob, split="train", data=DemoData(source="demo", max_train=count), output=path)
    write_backbone(files.teacher)
    sources = {"listing": files.listing, "teacher": files.teacher}
    run_stage(EmbeddingsJob, preprocessing=files.preprocessing, **sources, output=files.embeddings)
    knn = KnnBag(criterion="knn", teacher="teacher", size=4)
    run_stage(BagsJob, bags=knn, **sources, embeddings=files.embeddings, output=files.bags)
    files.labels = read_listing(files.listing, "train").label
    return files


@pytest.fixture
def unlabelled(tmp_path):
    """A listing of four images without labels."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 90)).save(tmp_path / "images" / f"{number}.png")
    data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
    run_stage(DataJob, split="train", data=data, output=tmp_path / "unlabelled.h5")
    return tmp_path / "unlabelled.h5"


def write_backbone(path, factor=1.0):
    """Write a network of random weights, those of its last layer multiplied by a factor."""
    spec = Backbone(architecture="resnet10", stem="small", width=1 / 16)
    torch.manual_seed(0)
    backbone = build_backbone(spec)
    backbone.layer4[-1].bn2.weight.data.mul_(factor)
    tensors = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    write_tensors(path, tensors, {"backbone": spec.model_dump(), "method": "moco"})
