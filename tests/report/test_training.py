import pytest
from matplotlib.colors import to_hex

from bingo.errors import BingoError
from bingo.report import training
from bingo.report.training import draw_training

LOSSES = {
    "r50": [3, 2, 1],
    "bingo/seed-0": [5, 4, 3.5],
    "bingo/seed-1": [5.5, 4.5, 4],
    "random/seed-0": [6, 5.5, 5.25],
}
TITLES = {"r50": "moco", "bingo": "bingo paper", "random": "bingo paper", "x": "none"}


@pytest.fixture
def logs(tmp_path):
    paths = {}
    for name, values in LOSSES.items():
        path = paths[name] = tmp_path / f"{name.replace('/', '-')}.csv"
        path.write_text("epoch,lr,loss\n" + "".join(f"{i},0.1,{value}\n" for i, value in enumerate(values, 1)))
    return paths


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_losses_that_compare_share_a_panel_and_others_do_not(logs, drawn):
    moco, bingo = drawn(training, "draw_training", TITLES, logs).axes
    assert (moco.get_title(), bingo.get_title()) == ("moco", "bingo paper")
    assert [line.get_ydata().tolist() for line in moco.lines] == [LOSSES["r50"]]
    assert [line.get_ydata().tolist() for line in bingo.lines] == [LOSSES[name] for name in list(LOSSES)[1:]]
    assert all(line.get_xdata().tolist() == [1, 2, 3] for line in (*moco.lines, *bingo.lines))
    assert legend(moco) == ["r50"]
    assert legend(bingo) == ["bingo", "random"]


def test_seeds_look_alike_and_students_differ_in_colour_and_dashes(logs, drawn):
    first, second, other = drawn(training, "draw_training", TITLES, logs).axes[1].lines
    assert to_hex(first.get_color()) == to_hex(second.get_color())
    assert first.get_linestyle() == second.get_linestyle()
    assert to_hex(first.get_color()) != to_hex(other.get_color())
    assert first.get_linestyle() != other.get_linestyle()


@pytest.mark.parametrize("panels", [1, 4])
def test_the_figure_is_legible_and_has_no_empty_axes(panels, logs, drawn, faults_of_layout):
    title = "bingo official intra+inter+cutmix and more, number"
    names = {f"a-student-of-rather-long-name-{i}": f"{title} {i % panels}" for i in range(14)}
    figure = drawn(training, "draw_training", names, dict.fromkeys(names, logs["r50"]))
    assert faults_of_layout(figure) == []
    assert len(figure.axes) == panels
    assert all(axes.lines for axes in figure.axes)


def test_a_run_without_a_panel_is_refused(logs, tmp_path):
    with pytest.raises(BingoError, match=r"bing/seed-0 .*'bingo'"):
        draw_training(TITLES, {"bing/seed-0": logs["r50"]}, [tmp_path / "x.svg"])


@pytest.mark.parametrize("content", ["", "epoch,lr\n0,0.1\n", "epoch,loss\n0,high\n", None])
def test_damaged_logs_are_refused_by_name(content, logs, tmp_path):
    bad = logs["bingo/seed-1"]
    bad.unlink()
    if content is not None:
        bad.write_text(content)
    with pytest.raises(BingoError, match=f"^{bad}: "):
        draw_training(TITLES, logs, [tmp_path / "x.svg"])
    assert not (tmp_path / "x.svg").exists()
