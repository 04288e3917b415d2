"""What a training command gives to programs: `--json`."""

import json
import sys
from typing import Annotated, Any

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, all else on standard error.")
]


def print_json(document: Any) -> None:
    """The one document on standard output."""
    sys.stdout.write(f"{json.dumps(document, indent=2, ensure_ascii=False)}\n")
