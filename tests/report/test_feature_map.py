import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.colors import to_hex

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
    monkeypatch.setattr(feature_map, "project_to_2d", lambda features: features[:, :2])


@pytest.fixture
def network(study):
    """What the map is told of the network."""
    return "bingo", study.preprocessing


@given(label=hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(-1, 15)))
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
def test_equal_features_lie_in_one_point_and_few_images_can_be_placed():
    assert not project_to_2d(np.ones((20, 6), dtype=np.float32)).any()
    for count, width in ((4, 3), (4, 100), (12, 60)):
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
    assert "60 training images" in figure.axes[0].get_title()


def test_of_many_classes_some_are_shown_and_the_title_says_so(study, network, drawn, quick, monkeypatch):
    monkeypatch.setattr(feature_map, "_CLASSES", 3)
    figure = drawn(feature_map, "draw_map", *network, study.listing, "train", study.teacher, after=(CPU, 0))
    found = points_of(figure)
    count = sum(map(len, found.values()))
    assert len(found) == 3
    classes = read_listing(study.listing, "train").classes
    assert all(len(points) == (study.labels == classes.index(name)).sum() for name, points in found.items())
    title = figure.axes[0].get_title()
    assert f"{count} training images" in title
    assert "3 of 10 classes" in title


def test_validation_images_are_shown_legibly(study, network, drawn, quick, tmp_path, faults_of_layout):
    data = DemoData(source="demo", max_val=20)
    run_stage(DataJob, split="val", data=data, train_listing=study.listing, output=tmp_path / "val.h5")
    figure = drawn(feature_map, "draw_map", *network, tmp_path / "val.h5", "val", study.teacher, after=(CPU, 0))
    assert faults_of_layout(figure) == []
    assert sum(map(len, points_of(figure).values())) == 20
    assert "20 validation images" in figure.axes[0].get_title()


def test_images_without_labels_have_one_look_and_no_legend(study, network, drawn, quick, unlabelled):
    figure = drawn(feature_map, "draw_map", *network, unlabelled, "train", study.teacher, after=(CPU, 0))
    assert [len(points) for points in points_of(figure).values()] == [4]
    assert not figure.legends


def test_equal_inputs_give_equal_bytes_with_points_as_pixels_and_text_as_text(study, network, tmp_path, texts):
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        draw_map(*network, study.listing, "train", study.teacher, [path], CPU, 0)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "<image" in paths[0].read_text()
    assert set(read_listing(study.listing, "train").classes) <= set(texts(paths[0]))


@pytest.mark.parametrize("fault", ["too few images", "weights that are not finite", "the other split"])
def test_what_cannot_be_drawn_is_refused_by_its_file(fault, study, network, tmp_path, request):
    listing, split, weights = study.listing, "train", study.teacher
    if fault == "too few images":
        listing = named = request.getfixturevalue("unlabelled")
        (tmp_path / "images" / "3.png").unlink()
        data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
        run_stage(DataJob, split="train", data=data, output=listing)
    elif fault == "the other split":
        named, split = listing, "val"
    else:
        weights = named = tmp_path / "bad.safetensors"
        write_backbone(weights, factor=float("nan"))
    with pytest.raises(BingoError, match=f"^{named}: "):
        draw_map(*network, listing, split, weights, [tmp_path / "x.svg"], CPU, 0)
    assert not (tmp_path / "x.svg").exists()
