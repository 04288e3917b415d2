"""Ids that sort by time: ULIDs, as job ids and request ids."""

import re
import secrets

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
JOB_ID_PATTERN = re.compile(r"^job_[0-9A-HJKMNP-TV-Z]{26}$")
REPORT_ID_PATTERN = re.compile(r"^report_[0-9A-HJKMNP-TV-Z]{26}$")


def ulid(now: float) -> str:
    """48 bits of milliseconds and 80 random bits in Crockford's base 32. Source: the ULID specification."""
    value = (int(now * 1000) << 80) | secrets.randbits(80)
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def new_job_id(now: float) -> str:
    """now: epoch seconds."""
    return f"job_{ulid(now)}"


def new_report_id(now: float) -> str:
    """now: epoch seconds."""
    return f"report_{ulid(now)}"
