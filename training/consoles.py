"""The terminal of training's commands, or the pipe or file that stands in for it."""

import os
import sys
from typing import Final

from rich.console import Console

_UNCUT: Final = 4_000
"""Columns. A pipe or a file has no width of its own, and rich would squeeze tables into 80."""


def open_console(*, err: bool = False, quiet: bool = False, highlight: bool = True) -> Console:
    """A console as wide as the terminal, or as `COLUMNS` says, else so wide that nothing is cut.

    err: standard error, where progress and remarks go beside a JSON document.
    """
    stream = sys.stderr if err else sys.stdout
    is_sized = stream.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if is_sized else _UNCUT, stderr=err, quiet=quiet, highlight=highlight)
