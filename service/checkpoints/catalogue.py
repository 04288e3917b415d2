"""Checkpoints as the service offers them: resolved references and reports, kept for a moment."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from model_store.errors import ModelNotFoundError, ModelStoreError
from model_store.report import QualityReport, read_report
from model_store.report_page import read_report_page
from model_store.store import AliasChange, Checkpoint, ModelStore
from service.errors import NotFoundError

_KEEP_S = 5.0
"""A promotion is seen at the latest after this long."""

_T = TypeVar("_T")


class ModelCatalogue:
    """Reads the model store for all requests. clock: seconds, monotonic."""

    def __init__(self, store: ModelStore, default_reference: str, clock: Callable[[], float]) -> None:
        self._store = store
        self.default_reference = default_reference
        self._clock = clock
        self._kept: dict[tuple[str, ...], tuple[float, Any]] = {}
        self._generation = 0
        self._lock = threading.Lock()

    def resolve(self, reference: str | None) -> Checkpoint:
        """The checkpoint of a reference, or the default one. Raises ModelStoreError."""
        wanted = reference or self.default_reference
        return self._keep(("resolve", wanted), lambda: self._store.resolve(wanted))

    def kept(self, reference: str | None) -> Checkpoint | None:
        """As `resolve`, if it was read a moment ago; never touches the store."""
        found = self._kept.get(("resolve", reference or self.default_reference))
        if found is None or self._clock() - found[0] >= _KEEP_S:
            return None
        checkpoint: Checkpoint = found[1]
        return checkpoint

    def of_version(self, name: str, version: str) -> Checkpoint:
        """A version that is there. Raises NotFoundError, ModelStoreError."""
        if version not in self.versions(name):
            raise NotFoundError(
                f"There is no version {version[:100]!r} of a model {name[:100]!r}; see /models."
            )
        return self.resolve(f"{name}@{version}")

    def by_digest(self, prefix: str) -> Checkpoint:
        """The checkpoint whose digest begins so; the newest if the same weights were published twice.

        Raises ModelNotFoundError if none or several match, ManifestInvalidError.
        """
        known = self._keep(("checkpoints",), lambda: tuple(self._store.checkpoints()))
        found = {
            checkpoint.digest: checkpoint for checkpoint in known if checkpoint.digest.startswith(prefix)
        }
        if len(found) != 1:
            listed = (f"{checkpoint.digest[:16]} ({checkpoint.reference})" for checkpoint in known)
            raise ModelNotFoundError(prefix, tuple(listed))
        return next(iter(found.values()))

    def report(self, checkpoint: Checkpoint) -> QualityReport | None:
        """None if it has none. Raises ReportInvalidError."""
        key = ("report", checkpoint.manifest.reference)
        return self._keep(key, lambda: read_report(self._store, checkpoint))

    def report_page(self, checkpoint: Checkpoint) -> str | None:
        """Its report as HTML, None if it has none. Raises ReportInvalidError, WeightsCorruptedError."""
        return read_report_page(self._store, checkpoint)

    def names(self) -> tuple[str, ...]:
        return self._keep(("names",), self._store.names)

    def versions(self, name: str) -> tuple[str, ...]:
        """Raises ModelNotFoundError."""
        return self._keep(("versions", name), lambda: self._store.versions(name))

    def aliases(self, name: str) -> dict[str, str]:
        return self._keep(("aliases", name), lambda: self._store.aliases(name))

    def history(self, name: str) -> tuple[AliasChange, ...]:
        """Every promotion and rollback, oldest first."""
        return self._keep(("history", name), lambda: self._store.history(name))

    def served(self) -> list[tuple[Checkpoint, str]]:
        """Each aliased checkpoint with its alias, and the default one; unusable ones are left out."""
        found: list[tuple[Checkpoint, str]] = []
        for name in self.names():
            for alias, version in sorted(self.aliases(name).items()):
                try:
                    found.append((self.resolve(f"{name}@{version}"), alias))
                except ModelStoreError:
                    continue
        return found

    def forget(self) -> None:
        """Read everything anew: this process has changed the store."""
        with self._lock:
            self._kept.clear()
            self._generation += 1

    def _keep(self, key: tuple[str, ...], read: Callable[[], _T]) -> _T:
        with self._lock:
            kept, generation = self._kept.get(key), self._generation
        now = self._clock()
        if kept is not None and now - kept[0] < _KEEP_S:
            value: _T = kept[1]
            return value
        fresh = read()
        with self._lock:
            if len(self._kept) >= 1_000:
                self._kept.clear()
            if generation == self._generation:  # else it may have been read before the change
                self._kept[key] = (now, fresh)
        return fresh
