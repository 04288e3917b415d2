"""Tables of what there is."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from masan.client import Client


def models_of_server(client: Client) -> list[dict[str, Any]]:
    """Rows for `print_models` from `GET /models`."""
    return client.models()


def models_of_store(data_dir: Path) -> list[dict[str, Any]]:
    """Rows for `print_models` from the store of a data folder, the built-in checkpoint included."""
    from model_store.builtin import import_builtin
    from model_store.store import ModelStore

    folder = data_dir.expanduser() / "store"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = ModelStore(str(folder.resolve()))
    import_builtin(store)
    return [_row(store, name, version) for name in store.names() for version in store.versions(name)]


def _row(store: Any, name: str, version: str) -> dict[str, Any]:
    checkpoint = store.resolve(f"{name}@{version}")
    manifest = checkpoint.manifest
    return {
        "name": name,
        "version": version,
        "aliases": [alias for alias, target in store.aliases(name).items() if target == version],
        "digest": manifest.digest,
        "architecture": manifest.architecture,
        "resolution": manifest.resolution,
        "classes": list(manifest.classes),
        "images_seen": manifest.training.images_seen,
    }


def print_models(rows: list[dict[str, Any]], console: Console) -> None:
    """One line a checkpoint."""
    if not rows:
        console.print("No checkpoints.")
        return
    table = Table()
    for heading in ("checkpoint", "aliases", "architecture", "size", "classes", "digest"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(
            f"{row['name']}@{row['version']}",
            ", ".join(row.get("aliases") or ()),
            str(row.get("architecture", "")),
            f"{row['resolution']} px" if row.get("resolution") else "",
            ", ".join(row.get("classes") or ()),
            str(row.get("digest", "")).removeprefix("sha256:")[:16],
        )
    console.print(table)
