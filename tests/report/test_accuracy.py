import pytest

from bingo.report import accuracy
from bingo.report.accuracy import draw_accuracy

HEADER = "method,student,teacher,bags,protocol,metric,mean,std,seeds,published,source\n"
SMALL = """\
bingo,resnet18,r50,,linear-moco,top1,,,0,61.4000,Table 1
moco,,r50,,linear-moco,top1,80.5000,,1,,
moco,,r50,,linear-moco,top5,99.0000,,1,,
moco,,r50,,knn-10,top1,70.2500,,1,,
moco,alone,,,linear-moco,top1,62.0000,2.0000,3,,
moco,alone,,,knn-10,top1,,,0,,
bingo,distilled,r50,knn-5,linear-moco,top1,66.0000,0.7071,2,65.1000,Table 1
bingo,distilled,r50,knn-5,knn-10,top1,55.1235,,1,,
seed,seed,r50,,linear-moco,top1,64.0000,,1,,
seed,seed,r50,,knn-10,top1,54.0000,,1,,
"""
ARCHITECTURES = {"alone": "resnet18", "distilled": "resnet18", "seed": "resnet34, width 2"}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(HEADER + SMALL)
    return path


def panels_of(figure):
    """What a person sees of each panel: title, lines at the left, and by row dot, deviation, diamond and numbers."""
    left = []
    for axes in figure.axes:
        if axes.yaxis.get_tick_params()["labelleft"]:
            left = [label.get_text() for label in axes.get_yticklabels()]
        dots, deviations, diamonds = {}, {}, {}
        for container in axes.containers:
            marker, _, bars = container
            row = round(marker.get_ydata()[0])
            dots[row] = marker.get_xdata()[0]
            for bar in bars:
                (start, _), (end, _) = bar.get_segments()[0]
                deviations[row] = (end - start) / 2
        for line in axes.lines:
            if line.get_marker() == "D":
                diamonds[round(line.get_ydata()[0])] = line.get_xdata()[0]
        numbers, columns = {}, []
        for text in sorted(axes.texts, key=lambda text: text.get_position()[0]):
            row = round(text.xy[1]) if hasattr(text, "xy") else None
            if row == -1:
                columns.append(text.get_text())
            elif row is not None:
                column = round(text.get_position()[0] / accuracy._COLUMN) - 1
                numbers.setdefault(row, {})[column] = text.get_text()
        named = {row: {columns[column]: text for column, text in found.items()} for row, found in numbers.items()}
        yield axes, axes.get_title(), left, dots, deviations, diamonds, named


def test_dots_deviations_and_diamonds_are_the_numbers_of_the_table(table, drawn):
    figure = drawn(accuracy, "draw_accuracy", ARCHITECTURES, table)
    (_, first, lines, *linear), (_, second, _, *knn) = panels_of(figure)
    assert (first, second) == ("linear-moco", "knn-10")
    assert lines == [
        "teachers", "r50 (moco)", "resnet18", "bingo", "alone (moco)", "distilled (bingo)", "resnet34, width 2", "seed",
    ]  # fmt: skip
    assert linear[0] == {1: 80.5, 4: 62, 5: 66, 7: 64}
    assert linear[1] == {4: pytest.approx(2), 5: pytest.approx(0.7071)}
    assert linear[2] == {3: 61.4, 5: 65.1}
    assert linear[3] == {
        1: {"ours": "80.5"},
        3: {"publ.": "61.4"},
        4: {"ours": "62.0"},
        5: {"ours": "66.0", "publ.": "65.1"},
        7: {"ours": "64.0"},
    }
    assert knn[0] == {1: 70.25, 5: 55.1235, 7: 54}
    assert knn[1] == knn[2] == {}


def test_a_table_longer_than_a_page_is_drawn_in_blocks_on_shared_axes(table, drawn, faults_of_layout, monkeypatch):
    whole = drawn(accuracy, "draw_accuracy", ARCHITECTURES, table)
    monkeypatch.setattr(accuracy, "_LINES", 4)
    figure = drawn(accuracy, "draw_accuracy", ARCHITECTURES, table)
    assert len(figure.axes) == 3 * len(whole.axes)  # teachers; ResNet-18; ResNet-34
    assert faults_of_layout(whole) == faults_of_layout(figure) == []
    shown, limits = {}, {}
    for axes, protocol, _, dots, deviations, diamonds, _ in panels_of(figure):
        shown.setdefault(protocol, []).extend([*dots.values(), *diamonds.values()])
        limits.setdefault(protocol, set()).add(axes.get_xlim())
        low, high = axes.get_xlim()
        assert all(low < dots[row] - deviations.get(row, 0) for row in dots)
        assert all(dots[row] + deviations.get(row, 0) < high for row in dots)
    assert sorted(shown["linear-moco"]) == [61.4, 62, 64, 65.1, 66, 80.5]
    assert sorted(shown["knn-10"]) == [54, 55.1235, 70.25]
    assert all(len(pairs) == 1 for pairs in limits.values())


def test_detection_has_a_panel_for_boxes_and_one_for_masks(tmp_path, drawn):
    path = tmp_path / "table.csv"
    rows = [f"bingo,s,t,,coco-mask-rcnn,{metric},{value},,1,,\n" for metric, value in
            (("box_ap", 37.5), ("box_ap50", 58), ("mask_ap", 34.25))]  # fmt: skip
    path.write_text(HEADER + "".join(rows))
    figure = drawn(accuracy, "draw_accuracy", {"s": "resnet18"}, path)
    found = [(axes.get_xlabel(), dots) for axes, _, _, dots, *_ in panels_of(figure)]
    assert found == [("box AP", {1: 37.5}), ("mask AP", {1: 34.25})]


def test_the_legend_explains_what_is_there_and_no_more(table, tmp_path, drawn):
    def legend(path):
        figure = drawn(accuracy, "draw_accuracy", ARCHITECTURES, path)
        return [text.get_text() for text in figure.legends[0].get_texts()]

    assert legend(table) == ["moco", "bingo", "seed", "standard deviation over seeds", "published"]
    (tmp_path / "plain.csv").write_text(HEADER + "moco,alone,,,knn-10,top1,50,,1,,\n")
    assert legend(tmp_path / "plain.csv") == ["moco"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", ["", "moco,alone,,,knn-10,top1,,,0,,\n", "moco,alone,,,knn-10,top5,90,,1,,\n"])
def test_a_table_without_numbers_gives_a_figure_that_says_so(rows, tmp_path, texts):
    path = tmp_path / "table.csv"
    path.write_text(HEADER + rows)
    draw_accuracy(ARCHITECTURES, path, [tmp_path / "x.svg"])
    found = texts(tmp_path / "x.svg")
    assert "no result yet" in found
    assert not any("nan" in text for text in found)
