"""Weights of published networks that no package brings: found by name, known by the start of their sha256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch

from model_store.errors import WeightsCorruptedError
from training.errors import WeightsAbsentError


@dataclass(frozen=True)
class VerifiedWeights:
    """A file whose sha256, given in full, starts as it must."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class PinnedWeights:
    """One published file.

    network: whose. figure: what needs it. files: its names in torch's cache; the first is where a download
    goes. option: of the command, to name the file elsewhere. otherwise: what to do without the file.
    """

    network: str
    figure: str
    files: tuple[str, ...]
    url: str
    sha256_prefix: str
    option: str
    otherwise: str = ""

    @property
    def cache_path(self) -> Path:
        """`$TORCH_HOME/hub/checkpoints/<file>`."""
        return _cache_folder() / self.files[0]

    def find(self, given: Path | None = None, *, download: bool = False) -> VerifiedWeights:
        """The file `given`, else the one in torch's cache, else, with `download`, fetched into that cache.

        Raises WeightsAbsentError if there is none, WeightsCorruptedError for a file that is not the published
        one or cannot be read.
        """
        if given is not None:
            return self.verify(given)
        for name in self.files:
            if (_cache_folder() / name).is_file():
                return self.verify(_cache_folder() / name)
        if download:
            self._download()
            return self.verify(self.cache_path)
        raise WeightsAbsentError(self.how_to_get())

    def verify(self, path: Path) -> VerifiedWeights:
        """Raises WeightsCorruptedError unless the file can be read and its sha256 starts as published."""
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise WeightsCorruptedError(str(path), f"cannot be read: {error.strerror}") from error
        if not sha256.startswith(self.sha256_prefix):
            raise WeightsCorruptedError(str(path), f"sha256 is {sha256}; it must start {self.sha256_prefix}")
        return VerifiedWeights(path, sha256)

    def how_to_get(self) -> str:
        """One line that says what is needed, from where, and what can be done instead."""
        return (
            f"{self.figure} needs {self.files[0]} (sha256 starts {self.sha256_prefix}) from {self.url};"
            f" put it at {self.cache_path} or pass {self.option}{self.otherwise}"
        )

    def _download(self) -> None:
        self.cache_path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                self.url, str(self.cache_path), hash_prefix=self.sha256_prefix, progress=False
            )
        except (URLError, OSError, RuntimeError) as error:  # offline, a full disk, other bytes than published
            raise WeightsAbsentError(self.how_to_get()) from error


def _cache_folder() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
