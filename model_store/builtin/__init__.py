"""The checkpoint that ships with the package, so that a fresh clone has something to serve.

It lies beside this file in the layout of a store: `{name}/versions/{version}/`.
"""

from contextlib import suppress
from pathlib import Path

from model_store.errors import ModelAlreadyPublishedError, ModelNotFoundError
from model_store.store import PRODUCTION, Checkpoint, ModelStore

FOLDER = Path(__file__).parent


def builtin_store() -> ModelStore:
    """The package's own data folder; read only."""
    return ModelStore(str(FOLDER))


def import_builtin(store: ModelStore, source: ModelStore | None = None) -> Checkpoint:
    """Publish the newest built-in checkpoint into `store` if it is absent, and return it.

    The alias `production` is set if it is unset, else left alone. `source` stands in for the package's data.
    Raises ModelNotFoundError if this package ships none, WeightsCorruptedError if its files are damaged.
    """
    source = source or builtin_store()
    names = source.names()
    if not names:
        raise ModelNotFoundError("the built-in checkpoint")
    name = names[0]
    shipped = source.resolve(f"{name}@{source.versions(name)[-1]}")
    manifest = shipped.manifest
    if manifest.version not in store.versions(name):
        entries = (manifest.weights, *manifest.reports)
        files = {entry.path: source.read_file(shipped, entry.path) for entry in entries}
        with suppress(ModelAlreadyPublishedError):  # another process imports it at this moment
            store.publish(manifest, files)
    if PRODUCTION not in store.aliases(name):
        store.promote(name, manifest.version)
    return store.resolve(manifest.reference)
