"""`Prefer` and `Accept` as clients send them, and as nobody should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import NotAcceptableError
from service.http.preferences import MAX_WAIT_S, Preferences, negotiate, parse_prefer, prefers

JSON, ZIP, SSE = "application/json", "application/zip", "text/event-stream"
OFFERS = (JSON, ZIP, SSE)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Preferences()),
        ("", Preferences()),
        ("wait=30", Preferences(30)),
        ("wait=0", Preferences(0)),
        ("WAIT=5", Preferences(5)),
        ('wait="7"', Preferences(7)),
        ("wait=3600", Preferences(MAX_WAIT_S)),
        ("wait=-3", Preferences()),
        ("wait=1.5", Preferences()),
        ("wait", Preferences()),
        ("wait=5, wait=9", Preferences(5)),
        ("respond-async", Preferences(None, True)),
        ("respond-async, wait=10", Preferences(10, True)),
        ("return=minimal; foo=bar, wait=8", Preferences(8)),
        ('foo="a, wait=9", wait=4', Preferences(4)),
        (",,;=, wait=6", Preferences(6)),
        ("notwait=5", Preferences()),
        ("wait=" + "9" * 4000, Preferences()),
    ],
)
def test_preferences_are_read_and_the_rest_is_ignored(header: str | None, expected: Preferences) -> None:
    assert parse_prefer(header) == expected


@pytest.mark.parametrize(
    ("preferences", "patience_s", "applied"),
    [
        (Preferences(), 0, None),
        (Preferences(20), 20, "wait=20"),
        (Preferences(None, True), 0, "respond-async"),
        (Preferences(20, True), 0, "respond-async"),
    ],
)
def test_who_would_not_wait_is_answered_at_once(
    preferences: Preferences, patience_s: int, applied: str | None
) -> None:
    assert (preferences.patience_s, preferences.applied) == (patience_s, applied)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/zip", ZIP),
        ("APPLICATION/ZIP", ZIP),
        ("application/zip, application/json", JSON),
        ("application/json;q=0.5, application/zip", ZIP),
        ("application/json; q=0.5, */*; q=0.6", ZIP),
        ("text/event-stream, */*;q=0.1", SSE),
        ("text/*", SSE),
        ("application/json;q=0, */*", ZIP),
        ("application/json;charset=utf-8", JSON),
        ("text/html, application/xhtml+xml, */*;q=0.8", JSON),
        ("application/zip;q=high, application/json;q=0.1", JSON),
    ],
)
def test_the_heaviest_offer_wins(accept: str | None, expected: str) -> None:
    assert negotiate(accept, OFFERS) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json;q=0", "nonsense", "image/*, text/plain", ";", ","]
)
def test_nothing_to_offer_names_what_there_is(accept: str) -> None:
    with pytest.raises(NotAcceptableError) as caught:
        negotiate(accept, OFFERS)

    assert caught.value.errors[0].allowed == list(OFFERS)
    assert caught.value.headers["Vary"] == "Accept"


@given(st.text(max_size=200))
def test_any_prefer_is_read(header: str) -> None:
    wait_s = parse_prefer(header).wait_s

    assert wait_s is None or 0 <= wait_s <= MAX_WAIT_S


@given(st.integers(0, 10**9 - 1))
def test_wait_is_capped(seconds: int) -> None:
    assert parse_prefer(f"respond-later; x=1, wait={seconds}").wait_s == min(seconds, MAX_WAIT_S)


@given(st.text(max_size=200))
def test_any_accept_is_an_offer_or_a_refusal(accept: str) -> None:
    try:
        chosen = negotiate(accept, OFFERS)
    except NotAcceptableError:
        return
    assert chosen in OFFERS


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("text/html", True),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        ("application/json, text/html;q=0.9", False),
        ("application/json;q=0.1, text/html;q=0.2", True),
        ("text/html;q=0, */*", False),
        ("text/html;q=many", False),
        ("image/png", False),
        (";;,,=", False),
    ],
)
def test_one_of_two_is_preferred_or_not(accept: str | None, expected: bool) -> None:
    assert prefers(accept, "text/html", JSON) is expected
