"""Durations as `Cancel-After` has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.generate_parameters import MAX_DEADLINE_S, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1m", 60),
        ("15m30s", 930),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h1s", 3601),
        (" 5s ", 5),
        ("168h", MAX_DEADLINE_S),
        ("168h1s", None),
        ("0", None),
        ("0s", None),
        ("", None),
        ("m", None),
        ("1m30", None),
        ("30s1m", None),
        ("-5", None),
        ("1.5m", None),
        ("1d", None),
        ("٣s", None),
    ],
)
def test_durations_are_seconds_minutes_hours(text: str, seconds: int | None) -> None:
    assert parse_duration(text) == seconds


@given(st.integers(0, 167), st.integers(0, 59), st.integers(0, 59))
def test_parts_add_up(hours: int, minutes: int, seconds: int) -> None:
    total = 3600 * hours + 60 * minutes + seconds

    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == (total or None)


@given(st.text(max_size=30))
def test_any_text_is_a_duration_in_bounds_or_none(text: str) -> None:
    seconds = parse_duration(text)

    assert seconds is None or 1 <= seconds <= MAX_DEADLINE_S
