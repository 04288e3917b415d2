"""The checkpoints there are and what was forced, from a server or from a store on disk."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from masan.client import Client

Cards = Iterator[dict[str, Any]]
"""Model cards: digest, aliases, manifest."""
Changes = list[tuple[str, dict[str, Any]]]
"""Model name and one line of an alias's history, oldest first."""


def cards_of_server(client: Client) -> tuple[Cards, Changes]:
    """Cards of every version the server has, and its aliases' history."""
    models = client.models()["models"]
    cards = (client.model_card(model["name"], version) for model in models for version in model["versions"])
    return cards, [(model["name"], change) for model in models for change in model.get("history", ())]


def cards_of_store(data_dir: Path) -> tuple[Cards, Changes]:
    """The same from the store of a data folder, the built-in checkpoint included."""
    from model_store.builtin import import_builtin
    from model_store.errors import ModelNotFoundError
    from model_store.store import ModelStore

    folder = data_dir.expanduser().resolve() / "store"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = ModelStore(str(folder))
    with suppress(ModelNotFoundError):
        import_builtin(store)
    cards = (
        {
            "digest": checkpoint.digest,
            "aliases": [
                alias
                for alias, version in store.aliases(checkpoint.manifest.name).items()
                if version == checkpoint.manifest.version
            ],
            "manifest": checkpoint.manifest.model_dump(mode="json"),
        }
        for checkpoint in store.checkpoints()
    )
    changes = [
        (name, change.model_dump(mode="json")) for name in store.names() for change in store.history(name)
    ]
    return cards, changes


def print_cards(cards: Cards, changes: Changes, console: Console) -> None:
    """One row a checkpoint; below, each promotion that the quality gate was against."""
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
    for name, change in changes:
        if change.get("overridden"):
            console.print(_forced(name, change), soft_wrap=True, markup=False)


def _forced(name: str, change: dict[str, Any]) -> str:
    at = str(change["at"])[:16].replace("T", " ")
    before = f" from {change['previous']}" if change["previous"] else ""
    gates = "; ".join(change["overridden"])
    return (
        f"Forced on {at} UTC: {name}@{change['alias']}{before} to {change['version']}, because"
        f" {change['reason']}. The gate said: {gates}"
    )
