"""`masan models`: list, show, carry and promote checkpoints; go back to the one before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from masan.connection import (
    DEFAULT_DATA_DIR,
    ApiKey,
    AsJson,
    DataDir,
    Url,
    find_server,
    make_client,
    make_console,
    print_json,
)

if TYPE_CHECKING:
    from masan.listing import Cards, Changes
    from model_store.store import ModelStore

app = typer.Typer(
    help="List, show, export, import and promote checkpoints; go back to the one before.",
    invoke_without_command=True,
)

REFUSED_EXIT_CODE = 2

Store = Annotated[
    str | None,
    typer.Option("--store", envvar="MASAN_MODEL_STORE_URL", help="Model store; default: that of --data-dir."),
]
Reference = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="name, name@version or name@alias.")]
Alias = Annotated[str, typer.Option("--alias", help="The alias that changes.")]


@app.callback()
def models(
    context: typer.Context,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the checkpoints of a server, or of the data folder when no stack runs; or do more with them."""
    context.obj = (url, api_key, data_dir)
    if context.invoked_subcommand is None:
        _list((url, api_key, data_dir), as_json=as_json)


@app.command("list")
def list_models(
    context: typer.Context,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """List the checkpoints of a server, or of the data folder when no stack runs."""
    _list(_server_of(context, url, api_key, data_dir), as_json=as_json)


@app.command()
def show(
    context: typer.Context,
    reference: Reference,
    as_page: Annotated[
        bool, typer.Option("--card", help="The model card, in Markdown: with figures, floors and failures.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    api_key: ApiKey = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Show a checkpoint's card: what it is, what it learned from, what it is for and what it is not for."""
    from masan.listing import find_card, print_card

    if as_page and as_json:
        raise typer.BadParameter("--card is Markdown; give it or --json")
    server = _server_of(context, url, api_key, data_dir)
    with _cards(server) as (cards, _):
        card = find_card(list(cards), reference)
    if as_page:
        typer.echo(_page(server, card), nl=False)
    elif as_json:
        print_json(card)
    else:
        print_card(card, make_console())


@app.command("export")
def export_model(
    reference: Reference,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; default: NAME-VERSION.zip.")
    ] = None,
    as_json: AsJson = False,
    store: Store = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write a checkpoint with its reports into one file, to be imported elsewhere."""
    from masan.model_file import export_checkpoint
    from model_store.errors import ModelNotFoundError

    opened = _open(store, data_dir)
    try:
        checkpoint = opened.resolve(reference)
    except ModelNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    path = output or Path(f"{checkpoint.reference.replace('@', '-')}.zip")
    if path.exists():
        raise typer.BadParameter(f"{path} exists; give another --output")
    export_checkpoint(opened, checkpoint, path)
    if as_json:
        print_json({"checkpoint": checkpoint.reference, "digest": checkpoint.digest, "path": str(path)})
    else:
        typer.echo(f"{path}: {checkpoint.reference}, {path.stat().st_size / 1e6:.1f} MB")


@app.command("import")
def import_model(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What `masan models export` wrote.")],
    as_json: AsJson = False,
    store: Store = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Publish a checkpoint from a file, every digest checked; no alias changes."""
    from masan.model_file import import_checkpoint
    from model_store.errors import ModelAlreadyPublishedError

    if not path.is_file():
        raise typer.BadParameter(f"{path}: there is no such file")
    try:
        checkpoint = import_checkpoint(_open(store, data_dir, create=True), path)
    except ModelAlreadyPublishedError as error:
        raise typer.BadParameter(f"{path}: {error}") from error
    if as_json:
        print_json({"checkpoint": checkpoint.reference, "digest": checkpoint.digest})
    else:
        typer.echo(f"{checkpoint.reference} is published, digest {checkpoint.digest[:16]}")
        typer.echo(f"  masan models promote {checkpoint.reference}")


@app.command()
def promote(
    reference: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The checkpoint to promote.")],
    alias: Alias = "production",
    store: Store = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    force: Annotated[
        bool, typer.Option("--force", help="Promote it although a class got worse; needs --reason.")
    ] = False,
    reason: Annotated[str | None, typer.Option("--reason", help="Why; kept with the alias.")] = None,
    as_json: AsJson = False,
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
    if as_json:
        changed = {"model": name, "alias": alias, "version": version, "previous": done.previous}
        print_json({**changed, "overridden": list(map(str, done.overridden))})
        return
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
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: AsJson = False,
) -> None:
    """Let an alias name what it named before its last promotion."""
    from model_store.errors import ModelNotFoundError

    opened = _open(store, data_dir)
    before = opened.aliases(name).get(alias)
    try:
        version = opened.rollback(name, alias)
    except ModelNotFoundError as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        print_json({"model": name, "alias": alias, "version": version, "previous": before})
    else:
        typer.echo(f"{name}@{alias} is {version}, was {before}")


_Server = tuple[str | None, str | None, Path]


def _server_of(context: typer.Context, url: str | None, api_key: str | None, data_dir: Path) -> _Server:
    """What the command says of the server, else what stood before its name: `masan models --url URL show`."""
    before: _Server = context.obj or (None, None, DEFAULT_DATA_DIR)
    folder = before[2] if data_dir == DEFAULT_DATA_DIR else data_dir
    return url or before[0], api_key or before[1], folder


@contextmanager
def _cards(server: _Server) -> Iterator[tuple["Cards", "Changes"]]:
    from masan.listing import cards_of_server, cards_of_store

    url, api_key, data_dir = server
    found = find_server(url, data_dir)
    if found is None:
        yield cards_of_store(data_dir)
        return
    with make_client(found, api_key) as client:
        yield cards_of_server(client)


def _page(server: _Server, card: dict[str, Any]) -> str:
    """The model card of a card's checkpoint, with the newest report there is."""
    from masan.listing import report_of_server, report_of_store
    from model_store.manifest import Manifest
    from model_store.model_card import model_card

    url, api_key, data_dir = server
    manifest = Manifest.model_validate(card["manifest"])
    found = find_server(url, data_dir)
    if found is None:
        return model_card(manifest, report_of_store(data_dir, manifest.reference))
    with make_client(found, api_key) as client:
        return model_card(manifest, report_of_server(client, manifest.name, manifest.version))


def _list(server: _Server, *, as_json: bool) -> None:
    from masan.listing import print_cards

    with _cards(server) as (cards, changes):
        if as_json:
            history = [{"model": name, **change} for name, change in changes]
            print_json({"checkpoints": list(cards), "history": history})
        else:
            print_cards(cards, changes, make_console())


def _open(url: str | None, data_dir: Path, *, create: bool = False) -> "ModelStore":
    from model_store.store import ModelStore

    folder = data_dir.expanduser().resolve() / "store"
    if url is None and not folder.is_dir():
        if not create:
            raise typer.BadParameter(f"--data-dir {data_dir}: it holds no store; give --store")
        folder.mkdir(mode=0o700, parents=True)
    return ModelStore(url or str(folder))
