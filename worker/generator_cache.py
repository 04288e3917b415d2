"""Generators kept on the device, the least recently used one dropped for a new one."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model_store.errors import ModelNotFoundError
from model_store.generators.registry import Generator
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from worker.contract.messages import ModelRef
from worker.errors import StoreUnavailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedGenerator:
    """A checkpoint and its network, ready to draw."""

    checkpoint: Checkpoint
    generator: Generator


class GeneratorCache:
    """At most `capacity` generators by checkpoint digest.

    warm_up: called once for each newly loaded generator. on_change: called with what the cache holds now.
    """

    def __init__(
        self,
        store: ModelStore,
        device: torch.device,
        capacity: int,
        *,
        warm_up: Callable[[LoadedGenerator], None],
        on_change: Callable[[list[Checkpoint]], None],
    ) -> None:
        self._store = store
        self._device = device
        self._capacity = capacity
        self._warm_up = warm_up
        self._on_change = on_change
        self._loaded: OrderedDict[str, LoadedGenerator] = OrderedDict()

    def get(self, model: ModelRef) -> LoadedGenerator:
        """The generator a job is pinned to.

        Raises ModelNotFoundError, also if name and version now mean another digest, ManifestInvalidError,
        ArchitectureUnsupportedError, WeightsCorruptedError, StoreUnavailableError.
        """
        if loaded := self._loaded.get(model.digest):
            self._loaded.move_to_end(model.digest)
            return loaded
        try:
            checkpoint = self._store.resolve(model.reference)
            if checkpoint.digest != model.digest:
                raise ModelNotFoundError(
                    f"{model.reference} with digest {model.digest[:16]}",
                    (f"digest {checkpoint.digest[:16]}",),
                )
            return self._load(checkpoint)
        except OSError as error:
            raise StoreUnavailableError("model store", str(error)) from error

    def _load(self, checkpoint: Checkpoint) -> LoadedGenerator:
        while len(self._loaded) >= self._capacity:
            self._loaded.popitem(last=False)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        loaded = LoadedGenerator(checkpoint, load_generator(self._store, checkpoint, self._device))
        self._warm_up(loaded)
        self._loaded[checkpoint.digest] = loaded
        self._on_change([entry.checkpoint for entry in self._loaded.values()])
        logger.info("model loaded", extra={"model": checkpoint.reference, "digest": checkpoint.digest[:16]})
        return loaded
