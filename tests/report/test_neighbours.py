import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bingo.bags.knn import knn_bags
from bingo.errors import BingoError
from bingo.report import neighbours
from bingo.report.neighbours import draw_purity, purity_by_size
from bingo.study.images import FolderData
from bingo.study.jobs import DataJob
from tests.stage import run_stage


def unit_features(count, seed, dim=6):
    features = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def brute_force(features, label, anchors, size):
    """Purity, similarity and chance, one anchor and one neighbour at a time."""
    shares, similarities, chances = [], [], []
    for anchor in anchors:
        others = [i for i in range(len(label)) if i != anchor]
        products = {i: float(np.dot(features[anchor].astype(np.float64), features[i])) for i in others}
        nearest = sorted(others, key=lambda i: -products[i])[:size]
        known = [i for i in nearest if label[i] >= 0]
        if known:
            shares.append(sum(label[i] == label[anchor] for i in known) / len(known))
        similarities.append(products[nearest[-1]])
        labelled = [i for i in others if label[i] >= 0]
        chances.append(sum(label[i] == label[anchor] for i in labelled) / len(labelled))
    return np.mean(shares) if shares else np.nan, np.mean(similarities), np.mean(chances)


@settings(deadline=None, max_examples=50)
@given(count=st.integers(4, 30), seed=st.integers(0, 10_000), unknown=st.booleans(), block=st.integers(1, 40))
def test_purity_is_that_of_the_exact_neighbours(count, seed, unknown, block):
    draw = np.random.default_rng(seed)
    features = unit_features(count, seed)
    label = draw.integers(-1 if unknown else 0, 3, size=count)
    label[:2] = 1, 2  # two at least have a label
    anchors = np.sort(draw.permutation(np.flatnonzero(label >= 0))[: draw.integers(1, count)])
    sizes = sorted({1, 2, count // 2, count - 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bingo.bags.neighbours.QUERY_BLOCK", block)
        found = purity_by_size(features, label, anchors, sizes)
    for i, size in enumerate(sizes):
        share, similarity, chance = brute_force(features, label, anchors, size)
        assert found.share[i] == pytest.approx(share, nan_ok=True)
        assert found.similarity[i] == pytest.approx(similarity, abs=1e-6)
        assert found.chance == pytest.approx(chance)


@pytest.mark.parametrize("unknown", [0, 1])
def test_purity_of_all_images_is_that_of_their_bags(unknown):
    features = unit_features(200, 3)
    label = np.random.default_rng(4).integers(-unknown, 4, size=200)
    found = purity_by_size(features, label, np.flatnonzero(label >= 0), [1, 5, 20])
    for share, size in zip(found.share, (1, 5, 20), strict=True):
        assert share == pytest.approx(knn_bags(features.copy(), size).purity(label))


def test_an_anchor_never_counts_for_itself_however_many_copies_there_are():
    features = np.tile(np.float32([1, 0, 0]), (50, 1))
    label = np.r_[0, np.ones(49, dtype=np.int64)]
    np.testing.assert_array_equal(purity_by_size(features, label, np.array([0]), [1, 2, 49]).share, 0)


def test_the_figure_shows_the_numbers_for_all_sizes_below_the_number_of_images(study, drawn):
    figure = drawn(neighbours, "draw_purity", study.listing, study.embeddings, study.teacher)
    left, right = figure.axes
    curve, chance = left.lines
    assert curve.get_xdata().tolist() == right.lines[0].get_xdata().tolist() == [1, 2, 5, 10, 20, 50]
    with h5py.File(study.embeddings) as file:
        features = file["embedding"][:].astype(np.float64)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for i, size in enumerate(curve.get_xdata()):
        share, similarity, by_chance = brute_force(features, study.labels, range(60), size)
        assert curve.get_ydata()[i] == pytest.approx(share)
        assert right.lines[0].get_ydata()[i] == pytest.approx(similarity, abs=1e-5)
        assert f"{share:.1%}" in {text.get_text() for text in left.texts}
    assert chance.get_ydata() == pytest.approx([by_chance, by_chance])
    assert chance.get_linestyle() == "--"


def test_the_figure_is_legible(study, drawn, faults_of_layout):
    figure = drawn(neighbours, "draw_purity", study.listing, study.embeddings, study.teacher)
    assert faults_of_layout(figure) == []


def test_anchors_are_some_labelled_images_drawn_once(study, drawn, monkeypatch):
    seen = []

    def look(features, label, anchors, sizes):
        seen.append(anchors)
        return purity_by_size(features, label, anchors, sizes)

    monkeypatch.setattr(neighbours, "_ANCHORS", 10)
    monkeypatch.setattr(neighbours, "purity_by_size", look)
    for _ in range(2):
        drawn(neighbours, "draw_purity", study.listing, study.embeddings, study.teacher)
    np.testing.assert_array_equal(*seen)
    assert len(set(seen[0])) == 10
    assert max(seen[0]) > 20  # not the first ones


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_inputs_give_equal_bytes(suffix, study, tmp_path):
    for name in "ab":
        draw_purity(study.listing, study.embeddings, study.teacher, [tmp_path / f"{name}.{suffix}"])
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_embeddings_of_another_dataset_are_refused(study, tmp_path):
    with pytest.raises(BingoError, match="belongs to another dataset"):
        draw_purity(study.other_listing, study.embeddings, study.teacher, [tmp_path / "x.svg"])
    assert not list(tmp_path.iterdir())


def test_images_without_labels_are_refused(study, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    data = FolderData(source="folder", train=str(tmp_path / "images"), labels="none")
    run_stage(DataJob, split="train", data=data, output=tmp_path / "listing.h5")
    with pytest.raises(BingoError) as caught:
        draw_purity(tmp_path / "listing.h5", study.embeddings, study.teacher, [tmp_path / "x.svg"])
    assert str(caught.value).startswith(f"{tmp_path / 'listing.h5'}: purity needs labels")
    assert not (tmp_path / "x.svg").exists()
