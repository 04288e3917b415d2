"""Options that many commands share, the server they speak to, and how they print."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from masan.errors import ApiError, MasanError, NoServerError

if TYPE_CHECKING:
    from rich.console import Console

    from masan.client import Client

DEFAULT_DATA_DIR = Path("data")
_PIPE_WIDTH = 140
"""A pipe or a log has no width of its own; tables would be squeezed into 80 columns."""

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="MASAN_DATA_DIR",
        help="Folder of the embedded stack: queue, store, results, logs.",
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar="MASAN_URL", help="A running server; default: the stack of --data-dir."),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="MASAN_API_KEY", show_default=False, help="The server's API key."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON document on standard output, all else on standard error.")
]


def find_server(url: str | None, data_dir: Path) -> str | None:
    """The URL given, or that of the stack which runs on the data folder, once it is ready."""
    from masan.local import find_running

    if url:
        return url
    running = find_running(data_dir)
    if running is None:
        return None
    running.wait_until_ready()
    return running.url


def make_client(url: str, api_key: str | None) -> "Client":
    """A client that says on standard error why it waits."""
    from masan.client import Client

    def say(reason: str, seconds: float) -> None:
        if seconds >= 1:
            typer.echo(f"masan: {reason}; trying again in {seconds:.0f} s", err=True)

    try:
        return Client(url, api_key, on_retry=say)
    except ValueError as error:
        raise typer.BadParameter(f"--url {str(error).removeprefix('base_url: ')}") from error


@contextmanager
def open_client(url: str | None, api_key: str | None, data_dir: Path) -> Iterator["Client"]:
    """A client of the server asked for. Raises NoServerError if none is given and none runs."""
    found = find_server(url, data_dir)
    if found is None:
        raise NoServerError(str(data_dir))
    with make_client(found, api_key) as client:
        yield client


def said(error: MasanError | TyperException) -> str:
    """What a person at a terminal is told."""
    if isinstance(error, TyperException):
        return _with_value(error)
    lacks_key = isinstance(error, ApiError) and error.status == HTTPStatus.UNAUTHORIZED
    return f"{error} (--api-key or MASAN_API_KEY)" if lacks_key else str(error)


def _with_value(error: TyperException) -> str:
    """Typer's words, and the value that was given where a type or a range leaves it out."""
    text = error.format_message()
    if error.__cause__ is None:
        return text
    from pydantic import ValidationError

    text = text.replace(": Value error, ", ": ").rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        given = repr(error.__cause__.errors()[0]["input"])
        text += "" if given in text else f", not {given}"
    return text


def make_console(*, err: bool = False) -> "Console":
    """err: standard error, where progress and remarks go beside a JSON document."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(width=None if stream.isatty() else _PIPE_WIDTH, highlight=False, stderr=err)


def print_json(document: Any) -> None:
    """The one document on standard output."""
    typer.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def status_printer(console: "Console") -> Callable[[str], None]:
    """Prints what is being done, with the seconds since now."""
    started = time.monotonic()
    return lambda text: console.print(f"[dim]{time.monotonic() - started:5.1f} s[/dim]  {text}")
