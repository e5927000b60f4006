import pytest
from matplotlib.colors import to_hex
from PIL import Image

from bingo.errors import BingoError
from bingo.report.style import line_style, marker_style, new_figure, save, styled


@styled
def draw(outputs):
    figure = new_figure(3, 2)
    figure.subplots().plot([1, 2], [3, 4], label="a curve")
    save(figure, outputs)


def test_each_suffix_gives_its_format_and_equal_figures_equal_bytes(tmp_path, texts):
    for folder in "ab":
        draw([tmp_path / folder / "x.svg", tmp_path / folder / "x.png"])
    for name in ("x.svg", "x.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert texts(tmp_path / "a" / "x.svg")
    with Image.open(tmp_path / "a" / "x.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (600, 400)
        assert len(picture.convert("RGB").getcolors(100_000)) > 10  # something is drawn


@pytest.mark.parametrize("name", ["x.pdf", "x", "x.SVG"])
def test_other_formats_are_refused(name, tmp_path):
    with pytest.raises(BingoError, match=f"{name}: "):
        draw([tmp_path / name])
    assert not list(tmp_path.iterdir())


def test_colour_is_never_the_only_difference():
    styles = [marker_style(number) for number in range(10)]
    assert len({look["marker"] for look in styles}) == 10
    assert len({(to_hex(look["color"]), to_hex(look["markerfacecolor"])) for look in styles}) == 10
    assert len({line_style(number)["linestyle"] for number in range(5)}) == 5
    styles = [line_style(number) for number in range(35)]
    assert len({(look["color"], look["linestyle"]) for look in styles}) == 35


def contrast(colour):
    """Of a colour with white paper, as the Web Content Accessibility Guidelines define it."""
    channels = [int(to_hex(colour)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_every_colour_is_seen_on_white_paper():
    assert min(contrast(marker_style(number)["color"]) for number in range(10)) > 2
