import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.colors import to_hex
from PIL import Image

from bingo.data.listing import read_listing
from bingo.errors import BingoError
from bingo.report import feature_map
from bingo.report.feature_map import draw_map, project_to_2d, select_images
from bingo.study.images import DemoData, FolderData
from bingo.study.jobs import DataJob
from tests.stage import run_stage

from .conftest import write_backbone

CPU = torch.device("cpu")


@pytest.fixture
def quick(monkeypatch):
    """No t-SNE: the first two features as they are."""
    monkeypatch.setattr(feature_map, "place", lambda features: features[:, :2])


@pytest.fixture
def network(study):
    """What the map is told of the network."""
    return "bingo", study.preprocessing


@pytest.fixture
def unlabelled(tmp_path):
    """Four images, listed."""
    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (16, 16), (60 * number, 0, 90)).save(tmp_path / "images" / f"{number}.png")
    data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
    run_stage(DataJob, split="train", data=data, output=tmp_path / "unlabelled.h5")
    return tmp_path / "unlabelled.h5"


labels = hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(-1, 15))


@given(label=labels)
def test_few_images_of_ten_classes_at_most_are_chosen(label):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_map, "_IMAGES", 40)
        rows, classes, left_out = select_images(label)
        np.testing.assert_array_equal(rows, select_images(label).rows)
    known = set(label[label >= 0])
    assert (np.diff(rows) > 0).all()
    assert left_out == max(len(known) - 10, 0)
    assert set(label[rows]) - {-1} == set(classes)
    possible = [i for i in range(len(label)) if label[i] in known or not left_out]
    if left_out:
        assert label[rows].min() >= 0
        assert len(classes) <= 10
        assert len(rows) <= 40
    else:
        assert len(rows) == min(len(possible), 40)


def test_the_chosen_images_and_classes_are_not_the_first_ones():
    label = np.arange(100_000) // 1000
    rows, classes, left_out = select_images(label)
    assert (len(rows), len(classes), left_out) == (feature_map._IMAGES, 10, 90)
    assert rows[-1] > 50_000
    assert (np.bincount(label[rows])[classes] > 60).all()


def test_similar_features_lie_together():
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(3, 80))
    group = np.arange(60) % 3
    features = (centres[group] + 0.02 * draw.normal(size=(60, 80))).astype(np.float32)
    scaled = features * draw.uniform(0.1, 10, size=(60, 1)).astype(np.float32)  # the cosine cares for direction alone
    points = project_to_2d(scaled)
    assert points.shape == (60, 2)
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1) + np.diag(np.full(60, np.inf))
    np.testing.assert_array_equal(group[distance.argmin(axis=1)], group)


@pytest.mark.filterwarnings("error")
def test_equal_features_lie_in_one_point():
    assert not project_to_2d(np.ones((20, 6), dtype=np.float32)).any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("count", "width"), [(4, 3), (4, 100), (12, 60)])
def test_few_images_can_be_placed(count, width):
    features = np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)
    assert np.isfinite(project_to_2d(features)).all()


def points_of(figure):
    """The points of each entry of the legend."""
    return {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}


def test_each_class_has_its_points_and_a_look_of_its_own(study, network, drawn, quick):
    figure = drawn(feature_map, "draw_map", *network, study.listing, "train", study.teacher, after=(CPU, 0))
    with h5py.File(study.embeddings) as file:
        features = file["embedding"][:, :2]  # the same network on the same images, in float16
    classes = read_listing(study.listing, "train").classes
    found = points_of(figure)
    assert found.keys() == {classes[number] for number in study.labels}
    for name, points in found.items():
        np.testing.assert_allclose(points, features[study.labels == classes.index(name)], rtol=2e-3, atol=1e-4)
    lines = figure.axes[0].lines
    assert len({line.get_marker() for line in lines}) == len(lines)
    assert len({(to_hex(line.get_color()), to_hex(line.get_markerfacecolor())) for line in lines}) == len(lines)
    assert figure.axes[0].get_title() == "bingo: features of 60 training images, t-SNE"


def test_of_many_classes_some_are_shown_and_the_title_says_so(study, network, drawn, quick, monkeypatch):
    monkeypatch.setattr(feature_map, "_CLASSES", 3)
    figure = drawn(feature_map, "draw_map", *network, study.listing, "train", study.teacher, after=(CPU, 0))
    found = points_of(figure)
    count = sum(map(len, found.values()))
    assert len(found) == 3
    classes = read_listing(study.listing, "train").classes
    assert all(len(points) == (study.labels == classes.index(name)).sum() for name, points in found.items())
    title = f"bingo: features of {count} training images, 3 of 10 classes, t-SNE"
    assert figure.axes[0].get_title() == title


def test_validation_images_can_be_shown(study, network, drawn, quick, tmp_path):
    data = DemoData(source="demo", max_val=20)
    run_stage(DataJob, split="val", data=data, train_listing=study.listing, output=tmp_path / "val.h5")
    figure = drawn(feature_map, "draw_map", *network, tmp_path / "val.h5", "val", study.teacher, after=(CPU, 0))
    assert sum(map(len, points_of(figure).values())) == 20
    assert "20 validation images" in figure.axes[0].get_title()


def test_images_without_labels_have_one_look_and_no_legend(study, network, drawn, quick, unlabelled):
    figure = drawn(feature_map, "draw_map", *network, unlabelled, "train", study.teacher, after=(CPU, 0))
    assert [len(points) for points in points_of(figure).values()] == [4]
    assert not figure.legends


def test_the_figure_is_legible(study, network, drawn, quick, faults_of_layout):
    figure = drawn(feature_map, "draw_map", *network, study.listing, "train", study.teacher, after=(CPU, 0))
    assert faults_of_layout(figure) == []


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_inputs_give_equal_bytes(suffix, study, network, tmp_path):
    for name in "ab":
        draw_map(*network, study.listing, "train", study.teacher, [tmp_path / f"{name}.{suffix}"], CPU, 0)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_points_are_pixels_in_the_svg_and_text_is_text(study, network, quick, tmp_path, texts):
    draw_map(*network, study.listing, "train", study.teacher, [tmp_path / "x.svg"], CPU, 0)
    assert "<image" in (tmp_path / "x.svg").read_text()
    assert set(read_listing(study.listing, "train").classes) <= set(texts(tmp_path / "x.svg"))


def refusal(*arguments):
    with pytest.raises(BingoError) as caught:
        draw_map(*arguments, CPU, 0)
    assert not arguments[-1][0].exists()
    return str(caught.value)


def test_too_few_images_are_refused(study, network, unlabelled, tmp_path):
    (tmp_path / "images" / "3.png").unlink()
    data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
    run_stage(DataJob, split="train", data=data, output=unlabelled)
    message = refusal(*network, unlabelled, "train", study.teacher, [tmp_path / "x.svg"])
    assert message == f"{unlabelled}: a map needs at least 4 images, but there are 3"


def test_features_that_are_not_finite_are_refused(study, network, tmp_path):
    write_backbone(tmp_path / "bad.safetensors", factor=float("nan"))
    message = refusal(*network, study.listing, "train", tmp_path / "bad.safetensors", [tmp_path / "x.svg"])
    assert message.startswith(f"{tmp_path / 'bad.safetensors'}: holds weights that are not finite")


def test_a_listing_of_the_other_split_is_refused(study, network, tmp_path):
    message = refusal(*network, study.listing, "val", study.teacher, [tmp_path / "x.svg"])
    assert message.startswith(f"{study.listing}: lists the train images")
