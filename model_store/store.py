"""Where checkpoints live: a store over a URL that publishes atomically and verifies what it reads. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass

from model_store.manifest import Manifest

PRODUCTION = "production"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A published manifest and the folder (below the store's root) its files lie in."""

    manifest: Manifest
    folder: str
    # properties: reference "name@version", digest


class ModelStore:
    """Interface; being implemented. `url` is anything fsspec opens, or a plain local path.

    Layout: {name}/versions/{version}/{manifest.json, weights.safetensors, report.json...},
            {name}/aliases.json {"aliases": {"production": "1"}, "history": [...]}
    """

    def __init__(self, url: str) -> None: ...
    def names(self) -> tuple[str, ...]: ...
    def versions(self, name: str) -> tuple[str, ...]: ...
    def resolve(self, reference: str) -> Checkpoint: ...
    def find_by_digest(self, digest_prefix: str) -> Checkpoint: ...
    def aliases(self, name: str) -> dict[str, str]: ...
    def publish(self, manifest: Manifest, files: Mapping[str, bytes]) -> Checkpoint: ...
    def read_file(self, checkpoint: Checkpoint, path: str) -> bytes: ...
    def promote(self, name: str, version: str, alias: str = PRODUCTION) -> None: ...
    def rollback(self, name: str, alias: str = PRODUCTION) -> str: ...
