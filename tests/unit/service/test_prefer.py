"""Prefer: wait=n as clients spell it."""

import pytest

from service.prefer import wait_of


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("wait=30", 30),
        ("respond-async, wait=5", 5),
        ("wait=0", 0),
        ("wait=3600", 60),
        ("wait=", None),
        ("wait=-1", None),
        ("await=3", None),
    ],
)
def test_seconds_to_wait(header: str | None, seconds: int | None) -> None:
    assert wait_of(header) == seconds
