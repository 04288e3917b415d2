"""`masan keys`: make an API key, revoke one, list them. The file keeps their hashes alone."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from masan.connection import AsJson, print_json

if TYPE_CHECKING:
    from service.access.api_keys import ApiKey

app = typer.Typer(help="Make, revoke and list the API keys of a service.", no_args_is_help=True)

_T = TypeVar("_T")

_AGE = re.compile(r"^([1-9][0-9]{0,4})([dh])$")
_UNITS = {"d": "days", "h": "hours"}

KeyId = Annotated[str, typer.Argument(metavar="ID", help="Who the key is for, such as lab-7.")]
File = Annotated[
    Path,
    typer.Option("--file", envvar="MASAN_API_KEYS_FILE", help="The keys file that the service reads."),
]


def _limit(flag: str, text: str) -> Any:
    return typer.Option(flag, min=1, max=10**9, show_default="no limit", help=text)


@app.command()
def create(
    key_id: KeyId,
    file: File,
    scope: Annotated[
        list[str],
        typer.Option("--scope", help="What it may do; repeat for several. `admin` includes the others."),
    ],
    images_per_day: Annotated[
        int | None, _limit("--images-per-day", "Images it may ask for in a UTC day.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, _limit("--requests-per-minute", "Requests it may send in a minute.")
    ] = None,
    max_active_jobs: Annotated[
        int | None, _limit("--max-active-jobs", "Jobs it may have under way at a time.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="A date, a time with its zone, or an age: 2027-01-31, 90d, 12h."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once; a running service knows it within a second."""
    from service.access.api_keys import ApiKey, Scope, create_key

    now = time.time()
    known = [known.value for known in Scope]
    for asked in scope:
        if asked not in known:
            raise typer.BadParameter(f"--scope {asked!r} is none of {', '.join(known)}")

    def make(sha256: str) -> ApiKey:
        return ApiKey(
            id=key_id,
            sha256=sha256,
            scopes=frozenset(Scope(asked) for asked in scope),
            created_at=datetime.fromtimestamp(int(now), UTC),
            expires_at=None if expires is None else _parse_end(expires, now),
            images_per_day=images_per_day,
            requests_per_minute=requests_per_minute,
            max_active_jobs=max_active_jobs,
        )

    _check_id(key_id)
    key = _checked(lambda: create_key(file, make, now))
    if as_json:
        print_json({"id": key_id, "key": key})
        return
    typer.echo(f"The key of {key_id}, shown this once; send it as `Authorization: Bearer KEY`:", err=True)
    typer.echo(key)


@app.command()
def revoke(key_id: KeyId, file: File, as_json: AsJson = False) -> None:
    """Refuse a key from now on; a running service does within a second."""
    from service.access.api_keys import revoke_key

    _checked(lambda: revoke_key(file, key_id, time.time()))
    if as_json:
        print_json({"id": key_id, "state": "revoked"})
    else:
        typer.echo(f"{key_id} is revoked")


@app.command("list")
def list_keys(
    file: File,
    as_json: AsJson = False,
) -> None:
    """Every key with its scopes, limits and state; the keys themselves are kept nowhere."""
    from service.access.api_keys import read_keys

    now = time.time()
    rows = [_row(key, now) for key in _checked(lambda: read_keys(file))]
    if as_json:
        print_json({"keys": rows})
        return
    if not rows:
        typer.echo(f"{file} holds no key")
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=180, highlight=False)
    table = Table(*(name.replace("_", " ") for name in rows[0]), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console.print(table)


def _row(key: "ApiKey", now: float) -> dict[str, Any]:
    """What is shown of a key."""
    shown = key.model_dump(mode="json", exclude={"sha256", "scopes"})
    return {"id": key.id, "state": key.state(now), "scopes": sorted(key.scopes)} | shown


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return " ".join(value) if isinstance(value, list) else str(value)


def _check_id(key_id: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", key_id):
        raise typer.BadParameter(f"ID {key_id!r} must be 1 to 64 letters, digits, dots, dashes, underscores")


def _parse_end(text: str, now: float) -> datetime:
    """A UTC time after now. Raises BadParameter."""
    refused = typer.BadParameter(
        f"--expires {text!r} is no date (2027-01-31), time with its zone (2027-01-31T12:00Z), age (90d, 12h)"
    )
    if age := _AGE.match(text):
        return datetime.fromtimestamp(int(now), UTC) + timedelta(**{_UNITS[age[2]]: int(age[1])})
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        raise refused from None
    if end.tzinfo is None:
        if len(text) > len("2027-01-31"):
            raise refused
        end = end.replace(tzinfo=UTC)
    if end.timestamp() <= now:
        raise typer.BadParameter(f"--expires {text!r} is past")
    return end


def _checked(act: Callable[[], _T]) -> _T:
    """What `act` returns; a file or an id that will not do is bad input."""
    from service.access.api_keys import KeyChangeError, KeysFileError

    try:
        return act()
    except (KeyChangeError, KeysFileError) as error:
        raise typer.BadParameter(str(error)) from error
