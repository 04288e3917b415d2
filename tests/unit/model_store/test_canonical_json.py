"""One spelling for each document: the examples of RFC 8785, and what it cannot hold."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.canonical_json import canonical_json, parse_strict

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("bits", "spelled"),
    [
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_are_spelled_as_the_rfc_says(bits: str, spelled: str) -> None:
    """Source: RFC 8785, appendix B."""
    (number,) = struct.unpack(">d", bytes.fromhex(bits))

    assert canonical_json(number) == spelled.encode()


def test_keys_stand_in_the_order_of_the_rfc() -> None:
    """Source: RFC 8785, section 3.2.3: by UTF-16 code units, so that an emoji comes before U+FB33."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\u00f6"]

    spelled = json.loads(canonical_json(dict.fromkeys(names)))

    assert list(spelled) == ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_text_is_escaped_no_more_than_it_must_be() -> None:
    assert canonical_json("\u20ac$\x0f\nA'B\"\\/") == '"\u20ac$\\u000f\\nA\'B\\"\\\\/"'.encode()


@given(JSON_VALUES)
def test_what_is_spelled_means_the_same(value: object) -> None:
    spelled = canonical_json(value)

    assert parse_strict(spelled) == value
    assert canonical_json(parse_strict(spelled)) == spelled


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, -(2**53), "\ud800", b"bytes", {1}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json(value)


@pytest.mark.parametrize("content", [b'{"a":1,"a":2}', b"NaN", b"{", b"\xff", b"[" * 100_000])
def test_what_has_no_single_meaning_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        parse_strict(content)
