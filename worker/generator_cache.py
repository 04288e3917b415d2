"""Generators kept on the device, the least recently used one dropped for a new one."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model_store.errors import ModelNotFoundError
from model_store.generators.registry import Generator
from model_store.prepared.prepare import EAGER, PreparedGenerator
from model_store.quality.reference_set import ReferenceSetAbsentError, load_reference_set
from model_store.store import Checkpoint, ModelStore
from model_store.weights import load_generator
from worker.contract.messages import ModelRef
from worker.errors import GpuMemoryError, StoreUnavailableError
from worker.gate import NO_REFERENCE, GateReference

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedGenerator:
    """A checkpoint and its generator, ready to draw. drawn_with: see `model_store.prepared.prepare`."""

    checkpoint: Checkpoint
    generator: Generator
    drawn_with: str = EAGER


class GeneratorCache:
    """At most `capacity` generators by checkpoint digest; one more while a new one is loaded. For threads.

    prepare: makes what a network is served with; None: the network itself. warm_up: called once for each
    newly loaded generator. on_change: called with what the cache holds now.
    """

    def __init__(
        self,
        store: ModelStore,
        device: torch.device,
        capacity: int,
        *,
        prepare: Callable[[Generator], PreparedGenerator] | None = None,
        warm_up: Callable[[LoadedGenerator], None],
        on_change: Callable[[list[LoadedGenerator]], None],
    ) -> None:
        self._store = store
        self._device = device
        self._capacity = capacity
        self._prepare = prepare or PreparedGenerator
        self._warm_up = warm_up
        self._on_change = on_change
        self._loaded: OrderedDict[str, LoadedGenerator] = OrderedDict()
        self._references: dict[str, GateReference] = {}
        self._loading = threading.RLock()

    def get(self, model: ModelRef) -> LoadedGenerator:
        """The generator a job is pinned to.

        Raises ModelNotFoundError, also if name and version now mean another digest, ManifestInvalidError,
        ArchitectureUnsupportedError, WeightsCorruptedError, StoreUnavailableError.
        """
        with self._loading:
            return self._get(model)

    def _get(self, model: ModelRef) -> LoadedGenerator:
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

    def gate_reference(self, loaded: LoadedGenerator) -> GateReference:
        """What the gate knows of the real images behind a checkpoint; read once, when it is first needed.

        Raises ReferenceSetInvalidError, WeightsCorruptedError, StoreUnavailableError: a set that is there and
        cannot be read must not pass for none.
        """
        with self._loading:
            return self._gate_reference(loaded)

    def _gate_reference(self, loaded: LoadedGenerator) -> GateReference:
        digest = loaded.checkpoint.digest
        if digest not in self._references:
            try:
                reference = GateReference.of(load_reference_set(self._store, loaded.checkpoint))
            except ReferenceSetAbsentError:
                reference = NO_REFERENCE
            except OSError as error:
                raise StoreUnavailableError("model store", str(error)) from error
            self._references = {
                kept: self._references[kept] for kept in self._loaded if kept in self._references
            } | {digest: reference}
        return self._references[digest]

    def _load(self, checkpoint: Checkpoint) -> LoadedGenerator:
        """What is kept is dropped once its successor works, not before: a failed load costs nothing."""
        try:
            prepared = self._prepare(load_generator(self._store, checkpoint, self._device))
        except torch.OutOfMemoryError as error:
            raise GpuMemoryError(f"the GPU's memory does not hold {checkpoint.reference}") from error
        loaded = LoadedGenerator(checkpoint, prepared.generator, prepared.path)
        self._warm_up(loaded)
        self._loaded[checkpoint.digest] = loaded
        while len(self._loaded) > self._capacity:
            self._loaded.popitem(last=False)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        self._on_change(list(self._loaded.values()))
        logger.info(
            "model loaded",
            extra={
                "model": checkpoint.reference,
                "digest": checkpoint.digest[:16],
                "drawn_with": loaded.drawn_with,
            },
        )
        return loaded
