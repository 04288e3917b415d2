from xml.etree import ElementTree

from training.reproduce.experiment import Dot, Plot, cell, mean_sd, optional
from training.reproduce.plot import draw_plots
from training.reproduce.render import markdown

SVG = "{http://www.w3.org/2000/svg}"


def test_dots_lie_in_the_order_of_their_values() -> None:
    dots = (
        Dot(label="low", value=1.0, sd=0.5, reference=0.2),
        Dot(label="high", value=4.0),
        Dot(label="middle & <odd>", value=2.0),
    )

    picture = ElementTree.fromstring(draw_plots([Plot(title="t", axis="a", dots=dots, reference="floor")]))  # noqa: S314

    x = [float(circle.attrib["cx"]) for circle in picture.iter(f"{SVG}circle")]
    assert x[0] < x[2] < x[1]
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "middle & <odd>" in texts
    assert "a; red: floor" in texts


def test_equal_values_and_no_plots_are_drawn_too() -> None:
    same = (Dot(label="a", value=0.0), Dot(label="b", value=0.0))

    assert draw_plots([Plot(title="t", axis="a", dots=same)]).count("<circle") == 2
    assert draw_plots([]).startswith("<svg")


def test_cells_tell_spread_and_what_is_missing() -> None:
    assert mean_sd([1.0, 3.0]) == (2.0, 2**0.5)
    assert cell([1.0, 3.0]) == "2.0 ± 1.4"
    assert cell([1.0, 3.0], "+.1f") == "+2.0 ± 1.4"
    assert cell([2.5]) == "2.5"
    assert cell([2.5, None]) == "diverged"
    assert cell([]) == optional(None)
    assert markdown.__doc__ is not None
