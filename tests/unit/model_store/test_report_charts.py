"""Bars and marks stand where their values are; the matrix frames the nearest class."""

import re

import pytest

from model_store.report_charts import Bar, bar_chart, class_matrix, floor_marks


def rectangles(markup: str) -> list[tuple[float, float]]:
    """Left end and width of every bar."""
    found = re.findall(r'<rect class="bar" x="([\d.]+)" y="\d+" width="([\d.]+)"', markup)
    return [(float(x), float(width)) for x, width in found]


def marks(markup: str, kind: int) -> list[float]:
    """Where the marks of a kind stand, without the key's."""
    return [float(x) for x in re.findall(rf'mark{kind}" d="M([\d.]+) \d+v', markup)][:-1]


def test_bars_are_to_scale_and_marks_stand_on_it() -> None:
    markup = bar_chart(
        "Distance", [Bar("a", 10.0, None, {"floor": (5.0,)}), Bar("b", 20.0, None, {"floor": (20.0,)})], ".1f"
    )

    (left, width_a), (_, width_b) = rectangles(markup)
    first, second = marks(markup, 0)
    assert width_b == pytest.approx(2 * width_a, abs=0.2)
    assert first == pytest.approx(left + width_a / 2, abs=0.2)
    assert second == pytest.approx(left + width_b, abs=0.2)
    assert ">10.0</text>" in markup


def test_negative_values_go_left_of_zero() -> None:
    markup = bar_chart("Luma", [Bar("a", -4.0, None, {"allowed": (-8.0, 8.0)}), Bar("b", 4.0)], "+.1f")

    (left_a, width_a), (left_b, width_b) = rectangles(markup)
    assert left_a + width_a == pytest.approx(left_b, abs=0.2)
    assert width_a == pytest.approx(width_b, abs=0.2)
    assert ">-4.0</text>" in markup


def test_spread_is_a_whisker_around_the_end() -> None:
    markup = bar_chart("KID", [Bar("a", 0.1, 0.02)])

    ((left, width),) = rectangles(markup)
    ((start, end),) = re.findall(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)"', markup)
    assert (float(start) + float(end)) / 2 == pytest.approx(left + width, abs=0.2)


def test_axis_reaches_as_far_as_told() -> None:
    short = rectangles(bar_chart("Recall", [Bar("a", 0.5)]))
    long = rectangles(bar_chart("Recall", [Bar("a", 0.5)], reach=1.0))

    assert long[0][1] == pytest.approx(short[0][1] / 2, abs=0.2)


def test_a_missing_value_keeps_its_row_and_a_chart_of_none_is_left_out() -> None:
    assert bar_chart("Recall", [Bar("a", None)]) == ""
    assert len(rectangles(bar_chart("Recall", [Bar("a", None), Bar("b", 0.5)]))) == 1


def test_names_are_escaped() -> None:
    assert "<script>" not in bar_chart("<script>", [Bar("<script>", 1.0, None, {"<script>": (1.0,)})])
    assert "<script>" not in class_matrix({"<script>": {"<script>": 1.0}}, {})


def test_floor_marks_leave_out_what_is_not_known() -> None:
    assert list(floor_marks(1.0, None).values()) == [(1.0,)]
    assert list(floor_marks(None, 2.0).values()) == [(2.0,)]


def test_matrix_frames_the_nearest_class_and_tells_a_stray() -> None:
    markup = class_matrix(
        {"a": {"a": 10.0, "b": 20.0}, "b": {"a": 5.0, "b": 8.0}}, {"a": {"a": 3.0, "b": 30.0}}
    )

    cells = re.findall(r'<td class="([^"]*)" style="[^"]*"><b>([\d.]+)</b>', markup)
    assert cells == [("nearest", "10.0"), ("", "20.0"), ("nearest stray", "5.0"), ("", "8.0")]
    assert "<small>floor 3.0</small>" in markup
    assert "<small>real 30.0</small>" in markup


@pytest.mark.parametrize("row", [{"a": 0.0, "b": 0.0}, {"a": -0.001, "b": 0.2}])
def test_matrix_takes_distances_of_zero_and_estimates_below(row: dict[str, float]) -> None:
    markup = class_matrix({"a": row, "b": {"a": 0.2, "b": 0.0}}, {})

    assert markup.count('class="nearest"') == 2
