import json
import statistics

import numpy as np
import pytest

from bingo.artifacts.provenance import digest_json
from bingo.errors import BingoError
from bingo.report import bag_size
from bingo.report.bag_size import draw_bag_size
from bingo.study.report_contents import BagSizeSeries

SIZES = (1, 5, 20)
SERIES = [
    BagSizeSeries(label="bingo, resnet18 from r50", sizes={f"small-{k}": k for k in reversed(SIZES)}),
    BagSizeSeries(label="bingo, resnet34 from r50", sizes={f"large-{k}": k for k in SIZES}),
]
EVALUATIONS = ["linear-moco", "knn-10"]
VALUES = {
    ("small-1", "linear-moco"): [60.0, 61.0, 63.5],
    ("small-5", "linear-moco"): [64.0, 65.0],
    ("small-20", "linear-moco"): [62.25],
    ("large-1", "linear-moco"): [70.0],
    ("large-20", "linear-moco"): [71.0],
    ("large-5", "knn-10"): [50.0, 52.0],
}


@pytest.fixture
def results(tmp_path):
    return [
        write(tmp_path / f"{model}-{protocol}-{seed}.json", model, protocol, seed, top1=value, top5=99)
        for (model, protocol), values in VALUES.items()
        for seed, value in enumerate(values)
    ]


def write(path, model, protocol, seed, **metrics):
    said = {"model": model, "protocol": protocol, "seed": seed, "metrics": metrics}
    path.write_text(json.dumps({**said, "digest": digest_json(said)}))
    return path


def curves(axes):
    """Sizes, means and ends of the error bars of each line."""
    for container in axes.containers:
        line, _, (bars,) = container
        ends = {round(bar[0, 0]): bar[:, 1] for bar in bars.get_segments() if len(bar) == 2 and np.isfinite(bar).all()}
        yield line.get_xdata().tolist(), line.get_ydata().tolist(), ends


def test_points_are_means_and_bars_deviations_over_seeds_and_gaps_stay_gaps(results, drawn):
    figure = drawn(bag_size, "draw_bag_size", SERIES, EVALUATIONS, results)
    assert [axes.get_title() for axes in figure.axes] == ["linear-moco", "knn-10"]
    for axes, protocol in zip(figure.axes, ("linear-moco", "knn-10"), strict=True):
        assert axes.get_xscale() == "log"
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "5", "20"]
        for name, (sizes, means, bars) in zip(("small", "large"), curves(axes), strict=True):
            found = [VALUES.get((f"{name}-{size}", protocol)) for size in SIZES]
            assert sizes == list(SIZES)
            expected = [statistics.fmean(values) if values else np.nan for values in found]
            np.testing.assert_array_equal(means, expected)
            several = {size: values for size, values in zip(SIZES, found, strict=True) if values and len(values) > 1}
            assert bars.keys() == several.keys()
            for size, values in several.items():
                half = np.std(values, ddof=1)
                np.testing.assert_allclose(bars[size], np.mean(values) + np.array([-half, half]))


def test_series_differ_in_more_than_colour(results, drawn):
    first, second = (
        container[0] for container in drawn(bag_size, "draw_bag_size", SERIES, EVALUATIONS, results).axes[0].containers
    )
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert first.get_linestyle() != second.get_linestyle()


def test_the_figure_is_legible_with_and_without_results(results, drawn, faults_of_layout):
    many = ["linear-moco", "knn-10", "semi-1", "cifar100-linear", "knn-20"]
    for evaluations, paths in ((EVALUATIONS, []), (many, results)):
        assert faults_of_layout(drawn(bag_size, "draw_bag_size", SERIES, evaluations, paths)) == []


def test_detectors_have_a_panel_for_boxes_and_one_for_masks(tmp_path, drawn):
    path = write(tmp_path / "a.json", "small-5", "coco-mask-rcnn", 0, box_ap=37.5, box_ap50=60.0, mask_ap=34.0)
    panels = drawn(bag_size, "draw_bag_size", SERIES, ["coco-mask-rcnn"], [path]).axes[:2]
    found = [(axes.get_ylabel(), next(curves(axes))[1]) for axes in panels]
    np.testing.assert_equal(found, [("box AP", [np.nan, 37.5, np.nan]), ("mask AP", [np.nan, 34.0, np.nan])])


def test_equal_results_give_equal_bytes_in_any_order(results, tmp_path):
    for name, paths in (("a", results), ("b", results[::-1])):
        draw_bag_size(SERIES, EVALUATIONS, paths, [tmp_path / f"{name}.svg"])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("model", "protocol"), [("other", "knn-10"), ("small-1", "knn-20"), ("small-1", "linear-moco")]
)
def test_results_of_another_figure_and_second_results_are_refused(model, protocol, results, tmp_path):
    path = write(tmp_path / "stray.json", model, protocol, 0, top1=1.0)
    with pytest.raises(BingoError, match=f"^{path}: .*{model} by {protocol}"):
        draw_bag_size(SERIES, EVALUATIONS, [*results, path], [tmp_path / "x.svg"])
    assert not (tmp_path / "x.svg").exists()
