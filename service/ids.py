"""Ids that sort by time: ULIDs, as job ids and request ids."""

import os
import re
import secrets
from collections import deque

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
JOB_ID_PATTERN = re.compile(r"^job_[0-9A-HJKMNP-TV-Z]{26}$")
REPORT_ID_PATTERN = re.compile(r"^report_[0-9A-HJKMNP-TV-Z]{26}$")


def ulid(now: float) -> str:
    """48 bits of milliseconds and 80 random bits in Crockford's base 32. Source: the ULID specification."""
    value = (int(now * 1000) << 80) | _random_bits()
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


_RANDOM_BYTES = 10
_FETCHED = 256
"""Ids that one call to the system gives the randomness for."""
_fetched: deque[int] = deque()
if hasattr(os, "register_at_fork"):  # else parent and child would give the same ids
    os.register_at_fork(after_in_child=_fetched.clear)


def _random_bits() -> int:
    """80 of them, never given before."""
    try:
        return _fetched.pop()
    except IndexError:
        block = secrets.token_bytes(_RANDOM_BYTES * _FETCHED)
        numbers = [int.from_bytes(block[i : i + _RANDOM_BYTES]) for i in range(0, len(block), _RANDOM_BYTES)]
        _fetched.extend(numbers[1:])
        return numbers[0]


def new_job_id(now: float) -> str:
    """now: epoch seconds."""
    return f"job_{ulid(now)}"


def new_report_id(now: float) -> str:
    """now: epoch seconds."""
    return f"report_{ulid(now)}"
