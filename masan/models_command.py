"""`masan models`: list checkpoints, promote one through the quality gate, go back to the one before."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from model_store.store import ModelStore

app = typer.Typer(
    help="List checkpoints; promote one, or go back to the one before.", invoke_without_command=True
)

_DEFAULT_DATA_DIR = Path("data")
REFUSED_EXIT_CODE = 2

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="MASAN_DATA_DIR", help="Folder of the embedded stack.")
]
Store = Annotated[
    str | None,
    typer.Option("--store", envvar="MASAN_MODEL_STORE_URL", help="Model store; default: that of --data-dir."),
]
Alias = Annotated[str, typer.Option("--alias", help="The alias that changes.")]


@app.callback()
def models(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option("--url", envvar="MASAN_URL", help="A running server; default: that of --data-dir."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="MASAN_API_KEY", show_default=False, help="The server's API key."),
    ] = None,
    data_dir: DataDir = _DEFAULT_DATA_DIR,
) -> None:
    """List the checkpoints of a server, or of the data folder when no stack runs; or promote one of them."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from masan.client import Client
    from masan.listing import cards_of_server, cards_of_store, print_cards
    from masan.local import find_running

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=140, highlight=False)
    running = None if url else find_running(data_dir)
    if url or running:
        with Client(url or (running.url if running else ""), api_key) as client:
            print_cards(*cards_of_server(client), console)
    else:
        print_cards(*cards_of_store(data_dir), console)


@app.command()
def promote(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The checkpoint to promote.")],
    alias: Alias = "production",
    store: Store = None,
    data_dir: DataDir = _DEFAULT_DATA_DIR,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it although a class got worse; needs --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with the alias.")] = None,
) -> None:
    """Let an alias name a checkpoint, unless a class got worse than in the one it names now.

    Exit code 2 and one line for each reason against it; nothing changes then.
    """
    from model_store.errors import ModelNotFoundError
    from model_store.promotion import PromotionRefusedError, promote

    name, separator, version = reference.partition("@")
    if not (name and separator and version):
        raise typer.BadParameter(f"{reference!r} is not NAME@VERSION, such as b-all@2")
    if force and not (reason or "").strip():
        raise typer.BadParameter("--force needs --reason TEXT, which is kept with the alias")
    if reason is not None and not force:
        raise typer.BadParameter("--reason goes with --force")
    opened = _open(store, data_dir)
    try:
        done = promote(opened, name, version, alias=alias, force_reason=reason.strip() if reason else None)
    except ModelNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    except PromotionRefusedError as refused:
        for gate in refused.gates:
            typer.echo(f"masan: {reference} does not become {alias}: {gate}", err=True)
        raise typer.Exit(REFUSED_EXIT_CODE) from None
    for gate in done.overridden:
        typer.echo(f"overridden: {gate}")
    if done.previous == version:
        typer.echo(f"{name}@{alias} is {version} already")
    else:
        typer.echo(f"{name}@{alias} is {version}" + (f", was {done.previous}" if done.previous else ""))


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model, such as b-all.")],
    alias: Alias = "production",
    store: Store = None,
    data_dir: DataDir = _DEFAULT_DATA_DIR,
) -> None:
    """Let an alias name what it named before its last promotion."""
    from model_store.errors import ModelNotFoundError

    opened = _open(store, data_dir)
    before = opened.aliases(name).get(alias)
    try:
        version = opened.rollback(name, alias)
    except ModelNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"{name}@{alias} is {version}, was {before}")


def _open(url: str | None, data_dir: Path) -> "ModelStore":
    from model_store.store import ModelStore

    folder = data_dir.expanduser().resolve() / "store"
    if url is None and not folder.is_dir():
        raise typer.BadParameter(f"--data-dir {data_dir}: it holds no store; give --store")
    return ModelStore(url or str(folder))
