"""JSON with one spelling only, so that it can be signed. Source: RFC 8785 (JSON Canonicalization Scheme)."""

import json
import math
from decimal import Decimal
from typing import Any, Final

_MAX_SAFE_INTEGER: Final = 2**53 - 1
"""RFC 8785, section 3.2.2.3: numbers are IEEE 754 doubles; larger integers go as strings."""
_MAX_PLAIN_EXPONENT: Final = 21
_MIN_PLAIN_EXPONENT: Final = -6
"""Between these ECMAScript spells a number without an exponent. Source: ECMA-262, Number::toString."""


def canonical_json(value: Any) -> bytes:
    """UTF-8, keys in the order of their UTF-16 code units, no spaces, numbers as ECMAScript spells them.

    Raises ValueError for what such a document cannot hold: NaN, an integer above 2^53 - 1, a lone surrogate.
    """
    return _spelled(value).encode()


def parse_strict(content: bytes) -> Any:
    """JSON that has one meaning only. Raises ValueError, also for a key that is given twice."""
    try:
        return json.loads(
            content,
            object_pairs_hook=_distinct,
            parse_constant=_refuse_constant,
            parse_float=_double,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_text(name)}:{_spelled(member)}" for name, member in members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_spelled(member) for member in value) + "]"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        if abs(value) > _MAX_SAFE_INTEGER:
            raise ValueError(f"{value} is above 2^53 - 1 and would be rounded by others; give it as text")
        return str(value)
    if isinstance(value, float):
        return _number(value)
    raise ValueError(f"JSON has no {type(value).__name__}")


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """The shortest digits that mean this double, laid out as ECMAScript does."""
    if not math.isfinite(value):
        raise ValueError(f"JSON has no {value}")
    if value == 0:
        return "0"
    sign, all_digits, exponent = Decimal(repr(value)).as_tuple()
    point = len(all_digits) + int(exponent)  # where the decimal point stands, counted from the first digit
    digits = "".join(map(str, all_digits)).rstrip("0")
    minus = "-" if sign else ""
    if _MIN_PLAIN_EXPONENT < point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    if 0 < point <= _MAX_PLAIN_EXPONENT:
        whole, fraction = digits[:point].ljust(point, "0"), digits[point:]
        return f"{minus}{whole}.{fraction}" if fraction else f"{minus}{whole}"
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{minus}{digits[0]}{fraction}e{point - 1:+d}"


def _distinct(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) != len(members):
        raise ValueError("a key is given twice")
    return found


def _double(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is beyond any double")
    return number


def _integer(text: str) -> int | float:
    """A double where others would read one: a large whole number is spelled without an exponent, too."""
    number = _double(text)
    return int(text) if abs(number) <= _MAX_SAFE_INTEGER else number


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
