"""`masan doctor`: whether this machine has what MASAN needs."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from masan.connection import DEFAULT_DATA_DIR, AsJson, DataDir, Url, make_console, print_json

BROKEN_EXIT_CODE = 1
_STYLES = {"ok": "green", "look": "yellow", "broken": "red"}


def doctor(
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="The port that `masan up` is to have.")
    ] = 8000,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", help="Where features and downloaded shards are kept.")
    ] = Path("~/.cache/masan"),
    as_json: AsJson = False,
    url: Url = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Look for what is missing or broken here, and say what to do. Exit code 1 if something is broken."""
    from masan.doctor import Patient, examine

    patient = Patient(data_dir.expanduser().resolve(), port, cache_dir.expanduser().resolve(), url)
    findings = list(examine(patient))
    broken = [finding for finding in findings if finding.level == "broken"]
    if as_json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table("", "what", "found", "what to do", box=None, pad_edge=False)
        for finding in findings:
            level = Text(finding.level, style=_STYLES[finding.level])
            table.add_row(level, finding.name, Text(finding.found), Text(finding.advice))
        make_console().print(table)
    if broken:
        raise typer.Exit(BROKEN_EXIT_CODE)
