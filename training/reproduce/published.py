"""What the publication reports, read from `paper.toml` beside this file."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

PAPER_FILE = Path(__file__).with_name("paper.toml")


def published(*path: str) -> Mapping[str, float]:
    """Figures at a path such as ("table1", "color", "masan"); empty where the paper's are not known."""
    values: Any = _paper()
    for name in path:
        values = values.get(name, {})
    return {name: float(value) for name, value in values.items()}


@cache
def _paper() -> Mapping[str, Any]:
    return tomllib.loads(PAPER_FILE.read_text())
