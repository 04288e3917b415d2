"""How long a client is willing to wait. Source: RFC 7240, section 4.3."""

import re
from typing import Final

MAX_WAIT_S: Final = 60

_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,6})(?:$|[,;\s])")


def wait_of(prefer: str | None) -> int | None:
    """Seconds of `Prefer: wait=n`, capped; None without. Other preferences are ignored, as the RFC says."""
    match = _WAIT.search(prefer) if prefer else None
    return min(int(match[1]), MAX_WAIT_S) if match else None
