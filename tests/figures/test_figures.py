import xml.etree.ElementTree as ET

import pytest
from matplotlib.colors import to_hex
from PIL import Image

from bingo.errors import BingoError
from bingo.figures import stage
from bingo.figures.stage import draw_accuracy, draw_training

TABLE = """\
method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source
moco,,r50,,linear-moco,top1,80.5000,,1,,
moco,,r50,,linear-moco,top5,99.0000,,1,,
moco,,r50,,knn-10,top1,70.2500,,1,,
moco,alone,,,linear-moco,top1,62.0000,2.0000,3,,
moco,alone,,,knn-10,top1,,,0,,
bingo,distilled,r50,knn-5,linear-moco,top1,66.0000,0.7071,2,,
bingo,distilled,r50,knn-5,knn-10,top1,55.1235,,1,,
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def logs(tmp_path):
    """Training logs of two seeds of one student and of a teacher, by name."""
    losses = {"r50": [3, 2, 1], "bingo/seed-0": [5, 4, 3.5], "bingo/seed-1": [5.5, 4.5, 4]}
    paths = {}
    for name, values in losses.items():
        path = paths[name] = tmp_path / f"{name.replace('/', '-')}.csv"
        path.write_text("epoch,lr,loss\n" + "".join(f"{i},0.1,{value}\n" for i, value in enumerate(values)))
    return paths


@pytest.fixture
def axes(monkeypatch):
    """Draw without saving: the axes of the figure."""

    def draw(function, source):
        figures = []
        with monkeypatch.context() as patch:
            patch.setattr(stage, "_save", lambda figure, _: figures.append(figure))
            function(source, [])
        stage.plt.close(figures[0])
        return figures[0].axes[0]

    return draw


def texts(svg):
    """Return every text of an SVG, which must be well-formed."""
    root = ET.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_the_accuracy_figure_names_networks_protocols_and_values(table, tmp_path):
    draw_accuracy(table, [tmp_path / "deep" / "x.svg"])
    found = texts(tmp_path / "deep" / "x.svg")
    names = {"teacher r50 (moco)", "alone (moco)", "distilled (bingo)", "linear-moco", "knn-10"}
    assert names | {"80.5", "70.2", "62.0", "66.0", "55.1", "top-1 accuracy in %"} <= set(found)
    assert "99.0" not in found
    assert not any("nan" in text for text in found)


def test_bars_are_as_high_as_the_table_says(table, axes):
    drawn = axes(draw_accuracy, table)
    bars = [container for container in drawn.containers if hasattr(container, "patches")]
    heights = [[bar.get_height() for bar in container] for container in bars]
    assert heights == [[80.5, 70.25], [62.0, pytest.approx(float("nan"), nan_ok=True)], [66.0, 55.1235]]
    errors = [segment[:, 1] for segment in bars[1].errorbar.lines[2][0].get_segments()[:1]]
    assert errors[0].tolist() == [60, 64]
    low, high = drawn.get_ylim()
    assert low < 55.1235
    assert high > 80.5
    # The groups stand side by side in the order of the table, their bars around the tick.
    centres = [[bar.get_x() + bar.get_width() / 2 for bar in container] for container in bars]
    assert [row[0] for row in centres] == sorted(row[0] for row in centres)
    assert centres[1] == pytest.approx([0, 1])
    assert centres[2][0] + 0.5 * bars[2][0].get_width() < 0.5


def test_the_training_figure_names_runs_once(logs, tmp_path):
    draw_training(logs, [tmp_path / "x.svg"])
    found = texts(tmp_path / "x.svg")
    assert {"epoch", "training loss"} <= set(found)
    assert [text for text in found if text in ("r50", "bingo")] == ["r50", "bingo"]
    assert not any("seed" in text for text in found)


def test_curves_show_the_logs_and_seeds_share_a_colour(logs, axes):
    teacher, first, second = axes(draw_training, logs).lines
    assert first.get_xdata().tolist() == [0, 1, 2]
    assert [line.get_ydata().tolist() for line in (teacher, first, second)] == [[3, 2, 1], [5, 4, 3.5], [5.5, 4.5, 4]]
    assert to_hex(first.get_color()) == to_hex(second.get_color())
    assert to_hex(first.get_color()) != to_hex(teacher.get_color())


def test_no_two_of_many_runs_look_alike(logs, axes):
    lines = axes(draw_training, {f"run-{i}": logs["r50"] for i in range(20)}).lines
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in lines}) == 20


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_inputs_give_equal_figures(table, logs, tmp_path, suffix):
    for draw, source in ((draw_accuracy, table), (draw_training, logs)):
        a, b = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
        draw(source, [a])
        draw(source, [b])
        assert a.read_bytes() == b.read_bytes()


def test_png_figures_are_pictures(table, logs, tmp_path):
    for draw, source in ((draw_accuracy, table), (draw_training, logs)):
        draw(source, [tmp_path / "x.png", tmp_path / "x.svg"])
        with Image.open(tmp_path / "x.png") as picture:
            picture.load()
            assert picture.format == "PNG"
            assert len(set(picture.convert("RGB").get_flattened_data())) > 10  # something is drawn
        assert texts(tmp_path / "x.svg")


@pytest.mark.filterwarnings("error")
def test_a_table_without_numbers_gives_a_figure_without_bars(tmp_path, axes):
    path = tmp_path / "table.csv"
    path.write_text("\n".join([TABLE.splitlines()[0], "moco,alone,,,knn-10,top1,,,0,,"]) + "\n")
    assert not axes(draw_accuracy, path).patches
    draw_accuracy(path, [tmp_path / "x.svg"])
    assert texts(tmp_path / "x.svg")


@pytest.mark.parametrize("content", ["", "epoch,lr\n0,0.1\n", "epoch,loss\n0,high\n", None])
def test_damaged_logs_are_refused_by_name(logs, tmp_path, content):
    bad = logs["bingo/seed-1"]
    bad.unlink()
    if content is not None:
        bad.write_text(content)
    with pytest.raises(BingoError) as caught:
        draw_training(logs, [tmp_path / "x.svg"])
    assert str(caught.value).startswith(f"{bad}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x.svg").exists()


def test_a_damaged_table_is_refused_by_name(tmp_path):
    with pytest.raises(BingoError, match=r"x\.csv: "):
        draw_accuracy(tmp_path / "x.csv", [tmp_path / "x.svg"])
