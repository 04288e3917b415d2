"""`masan jobs`, `job`, `cancel`, `retry`, `delete`, `download`: what a server makes, looked at and led."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masan.connection import (
    DEFAULT_DATA_DIR,
    ApiKey,
    AsJson,
    DataDir,
    Url,
    make_console,
    open_client,
    print_json,
)

if TYPE_CHECKING:
    from masan.client import Client
    from masan.job import Job

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id, such as `masan jobs` lists.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow it to its end first.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (jobs, job, cancel, retry, delete, download):
        app.command()(command)


def jobs(
    status: Annotated[
        str | None,
        typer.Option(help="queued, running, canceling, succeeded, failed, canceled or expired."),
    ] = None,
    class_: Annotated[str | None, typer.Option("--class", help="Jobs of this class alone.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List your jobs, newest first."""
    with open_client(url, api_key, data_dir) as client:
        found = list(client.jobs(status, class_, limit))
    if as_json:
        print_json({"jobs": [each.body for each in found]})
        return
    if not found:
        typer.echo("No jobs.")
        return
    from rich.table import Table

    table = Table()
    for heading in ("job", "status", "class", "images", "checkpoint", "seed", "created"):
        table.add_column(heading, no_wrap=heading == "job")
    for each in found:
        made = f"{each.done} of {each.n}"
        created = _time(each.body.get("created_at"))
        table.add_row(each.id, each.status, each.class_slug, made, each.model, str(each.seed), created)
    make_console().print(table)


def job(
    job_id: JobId,
    wait: Wait = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a job."""
    with open_client(url, api_key, data_dir) as client:
        found = _follow(client, job_id, as_json=as_json) if wait else client.job(job_id)
    _show(found, as_json=as_json)


def cancel(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Stop a job; what it has made stays readable as shards."""
    with open_client(url, api_key, data_dir) as client:
        _tell(client.cancel(job_id), as_json=as_json)


def retry(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Let a failed, canceled or expired job make what it still lacks."""
    with open_client(url, api_key, data_dir) as client:
        _tell(client.retry(job_id), as_json=as_json)


def delete(
    job_id: JobId,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Stop a job and let its images go."""
    with open_client(url, api_key, data_dir) as client:
        client.delete(job_id)
    if as_json:
        print_json({"id": job_id, "status": "deleted"})
    else:
        typer.echo(f"job {job_id} is deleted")


def download(
    job_id: JobId,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; default: CLASS-N-ID and the format's suffix."),
    ] = None,
    wait: Wait = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Fetch a job's archive and check it; goes on where an earlier attempt broke off."""
    from masan.archive_digests import SUFFIXES

    with open_client(url, api_key, data_dir) as client:
        found = _follow(client, job_id, as_json=as_json) if wait else client.job(job_id)
        name = f"{found.class_slug}-{found.n}-{found.id}{SUFFIXES.get(found.format, '')}"
        path = Path(name) if output is None else output
        path = path / name if path.is_dir() else path
        if path.exists() and not force:
            raise typer.BadParameter(f"{path} exists; give --force to replace it, or another --output")
        _download(client, found, path, as_json=as_json)
    if as_json:
        print_json({"job": found.id, "path": str(path), "bytes": path.stat().st_size, "format": found.format})
    else:
        typer.echo(f"{path}: {found.n} images, {path.stat().st_size / 1e6:.1f} MB, checked")


def _download(client: "Client", found: "Job", path: Path, *, as_json: bool) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=make_console(err=as_json)) as progress:
        task = progress.add_task("Downloading", total=None)

        def show(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        client.download(found, path, show)


def _follow(client: "Client", job_id: str, *, as_json: bool) -> "Job":
    from masan.generate import follow

    return follow(client, client.job(job_id), make_console(err=as_json))


def _tell(found: "Job", *, as_json: bool) -> None:
    if as_json:
        print_json(found.body)
    else:
        typer.echo(f"job {found.id} is {found.status}, {found.done} of {found.n} images made")


def _show(found: "Job", *, as_json: bool) -> None:
    if as_json:
        print_json(found.body)
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for name, shown in _FACTS.items():
        if text := shown(found):
            table.add_row(name, text)
    make_console().print(table)


def _progress(found: "Job") -> str:
    speed = found.images_per_second
    text = f"{found.done} of {found.n}" + (f", {speed:.1f} images/s" if speed else "")
    position = (found.body.get("progress") or {}).get("queue_position")
    return text + (f", place {position} in the queue" if position is not None else "")


def _mix(found: "Job") -> str:
    return ", ".join(f"{count} {slug}" for slug, count in found.classes.items())


def _error(found: "Job") -> str:
    error = found.error
    return f"{error.get('code')}: {error.get('message')}" if error else ""


def _encoding(found: "Job") -> str:
    quality = found.body.get("quality")
    return f"{found.format} of {found.body.get('image_format')}" + (f", quality {quality}" if quality else "")


def _time(text: Any) -> str:
    """To the second, UTC."""
    return f"{str(text)[:19].replace('T', ' ')} UTC" if text else ""


_FACTS: dict[str, Callable[["Job"], str]] = {
    "job": lambda found: found.id,
    "status": lambda found: found.status,
    "error": _error,
    "images": _mix,
    "made": _progress,
    "checkpoint": lambda found: found.model,
    "seed": lambda found: str(found.seed),
    "truncation": lambda found: str(found.body.get("truncation", "")),
    "archive": _encoding,
    "gate": lambda found: str(found.body.get("gate") or ""),
    "priority": lambda found: str(found.body.get("priority") or ""),
    "metadata": lambda found: ", ".join(f"{k}={v}" for k, v in (found.body.get("metadata") or {}).items()),
    "created": lambda found: _time(found.body.get("created_at")),
    "finished": lambda found: _time(found.body.get("finished_at")),
    "kept until": lambda found: _time(found.body.get("expires_at")),
    "attempt": lambda found: str(found.body.get("attempt") or ""),
}
