import itertools

import numpy as np
import pytest

from bingo.bags.bags import read_bags, write_bags
from bingo.bags.groups import group_bags
from bingo.bags.knn import knn_bags
from bingo.errors import BingoError
from bingo.report import neighbours
from bingo.report.neighbours import draw_similarity, similarities_by_class


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


def test_the_histogram_counts_every_member(study, drawn):
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


def test_the_figure_is_legible(study, drawn, faults_of_layout):
    assert faults_of_layout(drawn(neighbours, "draw_similarity", study.listing, study.bags)) == []


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_bags_give_equal_bytes(suffix, study, tmp_path):
    for name in "ab":
        draw_similarity(study.listing, study.bags, [tmp_path / f"{name}.{suffix}"])
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_bags_without_similarities_are_refused(study, tmp_path):
    groups = group_bags(study.labels)
    groups.attributes.update(dataset_digest=read_bags(study.bags).attributes["dataset_digest"], provenance={})
    write_bags(tmp_path / "groups.h5", groups)
    with pytest.raises(BingoError) as caught:
        draw_similarity(study.listing, tmp_path / "groups.h5", [tmp_path / "x.svg"])
    assert str(caught.value).startswith(f"{tmp_path / 'groups.h5'}: holds no similarities")
    assert not (tmp_path / "x.svg").exists()


def test_bags_of_another_dataset_are_refused(study, tmp_path):
    with pytest.raises(BingoError, match="belongs to another dataset"):
        draw_similarity(study.other_listing, study.bags, [tmp_path / "x.svg"])
