import csv
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from bingo.errors import BingoError
from bingo.report import accuracy
from bingo.report.accuracy import draw_accuracy
from bingo.report.networks import FigureRow, split_blocks, table_groups, table_panels
from bingo.report.table import read_table

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


def grid():
    """A table of 90 networks and more: teachers, four architectures, some without results, some published alone."""
    teachers, methods = ("r50-200", "r50-800", "r152", "r50x2"), ("bingo", "official", "seed", "disco", "compress")
    architectures = ("resnet18", "resnet34", "efficientnet_b0", "mobilenet_v3_large")
    numbers = itertools.cycle([0.0, 1.2, 2.7, 3.1, 0.4, 1.9, 2.2])
    lines, titles = [], {}
    for teacher in teachers:
        lines.append(f"imported,,{teacher},,linear-moco,top1,{70 + next(numbers)},,1,{70 + next(numbers):.1f},x\n")
    for architecture in architectures:
        for method, teacher in itertools.product(methods, teachers):
            name = f"{method}-{teacher}-{architecture}"
            titles[name] = architecture
            value = 60 + next(numbers)
            for protocol, drop, number in (("linear-moco", 0, len(lines)), ("knn-10", 8, len(lines) + 1)):
                own = (f"{value - drop},,1", f"{value - drop},{next(numbers) / 5:.2f},3", ",,0")[number % 3]
                published = f"{value + 0.3:.1f}" if number % 2 and not drop else ""
                lines.append(f"{method},{name},{teacher},,{protocol},top1,{own},{published},x\n")
        lines.append(f"compress,{architecture},swav-r50,,linear-moco,top1,,,0,62.6,x\n")
    return "".join(lines), titles


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(HEADER + SMALL)
    return path


@pytest.fixture
def large(tmp_path):
    content, titles = grid()
    (tmp_path / "grid.csv").write_text(HEADER + content)
    return titles, tmp_path / "grid.csv"


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


def test_a_large_table_is_drawn_whole(large, drawn):
    architectures, path = large
    expected = {}
    for row in csv.DictReader(path.open()):
        values = [float(row[name]) for name in ("mean", "std", "published") if row[name]]
        expected.setdefault(row["protocol"], []).extend(values)
    found = {}
    for _, protocol, _, *shown, _ in panels_of(drawn(accuracy, "draw_accuracy", architectures, path)):
        for values in shown:
            found.setdefault(protocol, []).extend(values.values())
    assert found.keys() == expected.keys()
    for protocol, values in found.items():
        assert sorted(values) == pytest.approx(sorted(expected[protocol]))


def test_panels_of_a_protocol_share_an_axis_that_shows_everything(large, drawn):
    architectures, path = large
    ranges = {}
    for axes, protocol, _, dots, deviations, diamonds, _ in panels_of(
        drawn(accuracy, "draw_accuracy", architectures, path)
    ):
        low, high = axes.get_xlim()
        ends = [dots[row] + sign * deviations.get(row, 0) for row in dots for sign in (-1, 1)] + list(diamonds.values())
        assert low < min(ends)
        assert max(ends) < high
        ranges.setdefault(protocol, set()).add((low, high))
    assert all(len(limits) == 1 for limits in ranges.values())


def test_figures_of_any_size_are_legible_and_fit_a_page(table, large, drawn, faults_of_layout):
    for architectures, path in ((ARCHITECTURES, table), large):
        figure = drawn(accuracy, "draw_accuracy", architectures, path)
        assert faults_of_layout(figure) == []
        assert figure.get_figheight() < 8.3  # A4 across


def test_detection_has_a_panel_for_boxes_and_one_for_masks(tmp_path, drawn):
    path = tmp_path / "table.csv"
    rows = [f"bingo,s,t,,coco-mask-rcnn,{metric},{value},,1,,\n" for metric, value in
            (("box_ap", 37.5), ("box_ap50", 58), ("mask_ap", 34.25))]  # fmt: skip
    path.write_text(HEADER + "".join(rows))
    figure = drawn(accuracy, "draw_accuracy", {"s": "resnet18"}, path)
    found = [(axes.get_xlabel(), dots) for axes, _, _, dots, *_ in panels_of(figure)]
    assert found == [("box AP", {1: 37.5}), ("mask AP", {1: 34.25})]


@pytest.mark.parametrize(
    ("student", "teacher", "label"),
    [
        ("distilled", "r50", "distilled (bingo), from r50"),
        ("bingo-r50-small", "r50", "bingo-r50-small (bingo)"),
        ("bingo-r50x2", "r50", "bingo-r50x2 (bingo), from r50"),
        ("bingo", "r50", "bingo, from r50"),
        ("resnet18", "r50", "bingo, from r50"),
        ("distilled", "", "distilled (bingo)"),
    ],
)
def test_where_there_are_several_teachers_a_line_names_its_own_once(student, teacher, label, tmp_path):
    path = tmp_path / "table.csv"
    rows = [("bingo", student, teacher), ("seed", "other", "r50"), ("seed", "another", "r152")]
    path.write_text(HEADER + "".join(f"{','.join(row)},,knn-10,top1,50,,1,,\n" for row in rows))
    groups = table_groups(read_table(path), {name: "resnet18" for _, name, _ in rows})
    assert [line.text for group in groups for line in group if line.method == "bingo"] == [label]


def test_methods_differ_in_colour_and_in_shape(tmp_path):
    lines = [FigureRow(f"m{i}", f"m{i}") for i in range(10)]
    styles = list(accuracy.method_styles(lines).values())
    assert len({look["marker"] for look in styles}) == 10
    assert len({to_hex(look["color"]) for look in styles[:7]}) == 7
    assert "D" not in {look["marker"] for look in styles}  # that is what was published


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


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_equal_tables_give_equal_bytes(suffix, table, tmp_path):
    for name in "ab":
        draw_accuracy(ARCHITECTURES, table, [tmp_path / f"{name}.{suffix}"])
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_svg_holds_its_text_as_text(table, tmp_path, texts):
    draw_accuracy(ARCHITECTURES, table, [tmp_path / "deep" / "x.svg"])
    expected = {"distilled (bingo)", "linear-moco", "top-1 accuracy in %", "80.5", "70.2", "61.4", "published"}
    assert expected <= set(texts(tmp_path / "deep" / "x.svg"))


def test_a_damaged_table_is_refused_by_name(tmp_path):
    with pytest.raises(BingoError, match=r"x\.csv: "):
        draw_accuracy(ARCHITECTURES, tmp_path / "x.csv", [tmp_path / "x.svg"])


@given(sizes=st.lists(st.integers(1, 30), max_size=12), limit=st.integers(1, 40))
def test_blocks_keep_every_line_in_order_and_groups_whole(sizes, limit):
    groups = [[FigureRow(f"{number}-{i}") for i in range(size)] for number, size in enumerate(sizes)]
    blocks = split_blocks(groups, limit)
    assert [line for block in blocks for line in block] == [line for group in groups for line in group]
    for block in blocks:
        members = {line.text.partition("-")[0] for line in block}
        assert len(block) == sum(sizes[int(number)] for number in members)
        assert len(block) <= limit or len(members) == 1
    assert all(len(a) + sizes[int(b[0].text.partition("-")[0])] > limit for a, b in itertools.pairwise(blocks))


def test_missing_numbers_stay_missing(table):
    frame = read_table(table)
    groups = table_groups(frame, ARCHITECTURES)
    alone = next(line for group in groups for line in group if line.text == "alone (moco)")
    linear, knn = table_panels(frame)
    assert math.isnan(alone.numbers[knn].mean)
    assert math.isnan(alone.numbers[linear].published)
