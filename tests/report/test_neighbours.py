import itertools

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bingo.bags.bags import read_bags, write_bags
from bingo.bags.groups import group_bags
from bingo.bags.knn import knn_bags
from bingo.errors import BingoError
from bingo.report import neighbours
from bingo.report.neighbours import draw_purity, draw_similarity, purity_by_size, similarities_by_class


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


def test_an_anchor_never_counts_for_itself_however_many_copies_there_are():
    features = np.tile(np.float32([1, 0, 0]), (50, 1))
    label = np.r_[0, np.ones(49, dtype=np.int64)]
    np.testing.assert_array_equal(purity_by_size(features, label, np.array([0]), [1, 2, 49]).share, 0)


def test_the_purity_figure_shows_the_numbers_for_all_sizes_below_the_number_of_images(study, drawn, faults_of_layout):
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


def by_hand(bags, label):
    """Similarities of each group, one anchor and one member at a time."""
    groups = {}
    for anchor, bag in enumerate(bags.bag_of):
        for place in range(bags.indptr[bag], bags.indptr[bag + 1]):
            pair = label[anchor], label[bags.members[place]]
            name = "class unknown" if min(pair) < 0 else "same class" if pair[0] == pair[1] else "another class"
            groups.setdefault(name, []).append(bags.similarity[place])
    return groups


@pytest.mark.parametrize("lowest", [-1, 0])
def test_members_are_divided_by_whether_they_have_the_anchors_class(lowest):
    draw = np.random.default_rng(0)
    bags = knn_bags(draw.normal(size=(80, 5)).astype(np.float32), 6)
    label = draw.integers(lowest, 3, size=80)
    found, expected = similarities_by_class(bags, label), by_hand(bags, label)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(np.sort(found[name]), np.sort(values))


def test_the_similarity_figure_counts_every_member(study, drawn, faults_of_layout):
    bags = read_bags(study.bags)
    expected = by_hand(bags, study.labels)
    figure = drawn(neighbours, "draw_similarity", study.listing, study.bags)
    outlines = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(outlines) == len(expected) == 2
    for outline, name in zip(outlines, ("same class", "another class"), strict=True):
        counts, edges, _ = outline.get_data()
        assert edges[0] == pytest.approx(bags.similarity.min())
        assert edges[-1] == pytest.approx(bags.similarity.max())
        inside = [sum(low <= value < high for value in expected[name]) for low, high in itertools.pairwise(edges)]
        inside[-1] += sum(value == edges[-1] for value in expected[name])
        assert counts.tolist() == inside
        assert outline.get_label() == f"{name}, {len(expected[name]) / 240:.1%}"
    assert outlines[0].get_linestyle() != outlines[1].get_linestyle()
    assert faults_of_layout(figure) == []


def test_inputs_of_another_dataset_or_without_labels_or_similarities_are_refused(study, unlabelled, tmp_path):
    groups = group_bags(study.labels)
    groups.attributes.update(dataset_digest=read_bags(study.bags).attributes["dataset_digest"], provenance={})
    write_bags(tmp_path / "groups.h5", groups)
    output = [tmp_path / "x.svg"]
    for named, draw, inputs in (
        (study.embeddings, draw_purity, (study.other_listing, study.embeddings, study.teacher)),
        (unlabelled, draw_purity, (unlabelled, study.embeddings, study.teacher)),
        (study.bags, draw_similarity, (study.other_listing, study.bags)),
        (tmp_path / "groups.h5", draw_similarity, (study.listing, tmp_path / "groups.h5")),
    ):
        with pytest.raises(BingoError, match=f"^{named}: "):
            draw(*inputs, output)
        assert not output[0].exists()
