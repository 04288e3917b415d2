from dataclasses import replace
from xml.etree import ElementTree

from training.reproduce.curves import colours_of, draw_curves
from training.reproduce.experiment import Curves, Line
from training.reproduce.plot import draw_plots

CURVES = Curves(
    title="a & b",
    axis="percent",
    along="images",
    places=("10", "20", "50"),
    lines=(
        Line(label="real", values=((40.0, 2.0), (50.0, None), (60.0, 1.0))),
        Line(label="<ours>", values=((45.0, 2.0), None, (58.0, 1.0))),
    ),
)
SVG = "{http://www.w3.org/2000/svg}"


def test_points_lie_in_the_order_of_places_and_values() -> None:
    picture = ElementTree.fromstring(draw_plots([], [CURVES]))  # noqa: S314

    dots = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in picture.iter(f"{SVG}circle")]
    real, ours = dots[:3], dots[3:]
    assert [x for x, _ in real] == sorted(x for x, _ in real)
    assert real[0][1] > real[1][1] > real[2][1]  # higher up is more
    assert len(ours) == 2
    assert ours[0][1] < real[0][1]
    assert abs(ours[0][0] - real[0][0]) < 10
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert {"a & b", "<ours>", "50", "percent; along: images"} <= set(texts)


def test_nothing_is_drawn_outside_its_height() -> None:
    inside, height = draw_curves(CURVES, 760, colours_of([CURVES]))
    picture = ElementTree.fromstring(f"<g>{inside}</g>")  # noqa: S314

    assert all(0 < float(text.attrib["y"]) < height for text in picture.iter("text"))


def test_curves_without_a_value_are_drawn_too() -> None:
    empty = Curves(title="t", axis="a", along="x", places=("1",), lines=(Line(label="l", values=(None,)),))

    assert draw_curves(empty, 760, colours_of([empty]))[0].count("<circle") == 0


def test_a_row_has_one_colour_in_every_picture() -> None:
    fewer = replace(CURVES, lines=CURVES.lines[1:])

    colours = colours_of([CURVES, fewer])

    assert len(set(colours.values())) == len(colours) == 2
    assert draw_curves(fewer, 760, colours)[0].count(colours["<ours>"]) == 1 + 2 + 2 + 1
    assert colours["real"] not in draw_curves(fewer, 760, colours)[0]
