"""The checkpoints there are and what was forced, from a server or from a store on disk."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from masan.client import Client
from masan.errors import NotFoundError

if TYPE_CHECKING:
    from model_store.report import QualityReport

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


def report_of_server(client: Client, name: str, version: str) -> "QualityReport | None":
    """The newest report that the server has of a version, None for none."""
    from model_store.report import QualityReport

    try:
        return QualityReport.model_validate(client.quality_report(name, version))
    except NotFoundError:
        return None


def report_of_store(data_dir: Path, reference: str) -> "QualityReport | None":
    """The same from the store of a data folder."""
    from model_store.report import read_report
    from model_store.store import ModelStore

    store = ModelStore(str(data_dir.expanduser().resolve() / "store"))
    return read_report(store, store.resolve(reference))


def find_card(cards: list[dict[str, Any]], reference: str) -> dict[str, Any]:
    """The card that name, name@version or name@alias means. Raises ValueError, which lists what there is."""
    name, _, wanted = reference.partition("@")
    of_name = [card for card in cards if card["manifest"]["name"] == name]
    by_version = [card for card in of_name if card["manifest"]["version"] == wanted]
    by_alias = [card for card in of_name if (wanted or "production") in card["aliases"]]
    newest = [] if wanted else of_name[-1:]
    for found in (*by_version, *by_alias, *newest):
        return found
    known = (f"{card['manifest']['name']}@{card['manifest']['version']}" for card in cards)
    raise ValueError(f"no checkpoint {reference!r}; there are: {', '.join(known) or 'none'}")


def print_card(card: dict[str, Any], console: Console) -> None:
    """A checkpoint's card, a fact a row."""
    manifest = card["manifest"]
    dataset, training = manifest["dataset"], manifest["training"]
    learned = ", ".join(f"{count} {slug}" for slug, count in dataset["images_per_class"].items())
    table = Table.grid(padding=(0, 2))
    for name, text in (
        ("checkpoint", f"{manifest['name']}@{manifest['version']}"),
        ("aliases", ", ".join(card["aliases"]) or "none"),
        ("digest", card["digest"].removeprefix("sha256:")),
        ("architecture", f"{manifest['architecture']}, {manifest['resolution']} px"),
        ("classes", ", ".join(manifest["classes"])),
        ("learned from", f"{dataset['name']} ({dataset['license']}): {learned}"),
        ("training", f"{training['recipe']}, {training['images_seen']:,} images, {training['hours']:.1f} h"),
        ("reports", str(len(manifest["reports"]))),
        ("license", manifest["license"]),
        ("intended use", manifest["intended_use"]),
        ("not for", manifest["not_for"]),
    ):
        table.add_row(name, Text(str(text)))
    console.print(table)


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
