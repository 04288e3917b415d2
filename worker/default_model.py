"""The checkpoint a worker is warm for: what the default model's reference means now, followed as it moves."""

import logging
import time
from collections.abc import Callable
from typing import Final

from model_store.builtin import import_builtin
from model_store.errors import ModelStoreError
from model_store.store import Checkpoint, ModelStore
from worker.contract.messages import ModelRef
from worker.errors import WorkerError
from worker.generator_cache import GeneratorCache
from worker.presence import Presence

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0
"""How late a worker notices a promotion at most, while it waits or between two chunks."""


class DefaultModel:
    """Keeps the checkpoint loaded that `reference` resolves to. monotonic: seconds, of any origin."""

    def __init__(
        self,
        store: ModelStore,
        cache: GeneratorCache,
        presence: Presence,
        reference: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cache = cache
        self._presence = presence
        self._reference = reference
        self._monotonic = monotonic
        self._look_at = 0.0
        self._warm: Checkpoint | None = None
        self._last_error: str | None = None

    def load(self) -> None:
        """Load and warm it, the built-in one if the store has none of its name.

        A model that cannot be loaded does not keep the worker from its queue: chunks that need it fail with
        the reason, which is what a client must see, and jobs on other models go on.
        """
        self._look_at = self._monotonic() + LOOK_EVERY_S
        try:
            self._import_builtin_if_missing()
            self._follow()
        except (ModelStoreError, WorkerError, OSError) as error:
            self._tell(str(error))

    def follow(self) -> None:
        """Load what was promoted since, if it is time to look; jobs keep the checkpoint they are pinned to.

        One that cannot be loaded leaves the old one warm; it is tried again until it can, or is rolled back.
        """
        if self._monotonic() < self._look_at:
            return
        try:
            self._follow()
        except (ModelStoreError, WorkerError, OSError) as error:
            self._tell(str(error))
        finally:
            self._look_at = self._monotonic() + LOOK_EVERY_S

    def _follow(self) -> None:
        checkpoint = self._store.resolve(self._reference)
        if self._warm is not None and checkpoint.digest == self._warm.digest and self._last_error is None:
            return
        manifest = checkpoint.manifest
        loaded = self._cache.get(
            ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)
        )
        if self._warm is not None and checkpoint.digest != self._warm.digest:
            logger.info(
                "default model changed",
                extra={"model": checkpoint.reference, "was": self._warm.reference},
            )
        self._warm, self._last_error = checkpoint, None
        self._presence.set_model(checkpoint)
        try:
            self._cache.gate_reference(loaded)
        except (ModelStoreError, WorkerError) as error:
            reason = f"images cannot be judged: {error}"
            logger.warning("reference set unusable", extra={"model": checkpoint.reference, "reason": reason})

    def _tell(self, reason: str) -> None:
        """Once for each reason."""
        if reason == self._last_error:
            return
        self._last_error = reason
        logger.error("default model unavailable", extra={"model": self._reference, "reason": reason})
        self._presence.set_model(self._warm, error=reason)

    def _import_builtin_if_missing(self) -> None:
        name = self._reference.partition("@")[0]
        if self._store.versions(name):
            return
        try:
            import_builtin(self._store)
        except (ModelStoreError, OSError) as error:
            logger.warning("built-in model not imported", extra={"reason": str(error)})
