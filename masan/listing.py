"""The checkpoints there are, from a server or from a store on disk, as one table."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from masan.client import Client


def cards_of_server(client: Client) -> Iterator[dict[str, Any]]:
    """Model cards (digest, aliases, manifest) of every version the server has."""
    for model in client.models()["models"]:
        for version in model["versions"]:
            yield client.model_card(model["name"], version)


def cards_of_store(data_dir: Path) -> Iterator[dict[str, Any]]:
    """The same from the store of a data folder, the built-in checkpoint included."""
    from model_store.builtin import import_builtin
    from model_store.errors import ModelNotFoundError
    from model_store.store import ModelStore

    folder = data_dir.expanduser().resolve() / "store"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = ModelStore(str(folder))
    with suppress(ModelNotFoundError):
        import_builtin(store)
    for checkpoint in store.checkpoints():
        manifest = checkpoint.manifest
        aliases = store.aliases(manifest.name)
        yield {
            "digest": checkpoint.digest,
            "aliases": [alias for alias, version in aliases.items() if version == manifest.version],
            "manifest": manifest.model_dump(mode="json"),
        }


def print_cards(cards: Iterator[dict[str, Any]], console: Console) -> None:
    """One row a checkpoint."""
    table = Table()
    for heading in ("checkpoint", "aliases", "architecture", "size", "classes", "images seen", "digest"):
        table.add_column(heading, overflow="fold", no_wrap=heading in {"checkpoint", "aliases"})
    for card in cards:
        manifest = card["manifest"]
        table.add_row(
            f"{manifest['name']}@{manifest['version']}",
            ", ".join(card["aliases"]),
            manifest["architecture"],
            f"{manifest['resolution']} px",
            ", ".join(manifest["classes"]),
            f"{manifest['training']['images_seen']:,}",
            card["digest"].removeprefix("sha256:")[:16],
        )
    console.print(table if table.rows else "No checkpoints.")
