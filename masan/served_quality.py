"""What was delivered of late, judged: per class a rolling kernel distance of served images to the real ones.

A report judges what a checkpoint can draw; this judges what clients were given, after truncation, gate and
promotion, so that a bad deployment shows within minutes. Torch is loaded with the first images.
"""

from __future__ import annotations

import io
import json
import logging
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, cast

import numpy as np
from PIL import Image
from redis import Redis
from redis.exceptions import RedisError

from model_store.errors import ModelStoreError
from model_store.file_store import FileStore
from model_store.store import ModelStore
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, JobSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from model_store.quality.extractors import FeatureExtractor

logger = logging.getLogger(__name__)

WINDOW_IMAGES: Final = 256
"""Newest images of a class that are judged; whole chunks, so a few more at times."""
MIN_IMAGES: Final = 64
"""Fewer say too little."""
_JOBS_LOOKED_AT: Final = 200
_LOCK: Final = "masan:served:lock"
_JOIN_S: Final = 5.0

Served = tuple[str, str]
"""(class slug, `name@version`)."""
ShardRef = tuple[str, int]
"""(job id, chunk index)."""


class ServedQuality:
    """Looks at the newest shards every `interval_s` and tells Redis what it found.

    The extractor is EfficientNet-Lite0, a report's primary one.
    """

    def __init__(self, redis: Redis, store: ModelStore, results_url: str, *, interval_s: float) -> None:
        """Raises ValueError for a URL that nothing installed can open."""
        self._redis = redis
        self._ledger = JobLedger(redis)
        self._store = store
        self._results = FileStore(results_url)
        self._interval_s = interval_s
        self._features: dict[str, npt.NDArray[np.float32]] = {}
        self._real: dict[str, dict[str, npt.NDArray[np.float32]]] = {}
        self._extractor: FeatureExtractor | None = None
        self._stopping = threading.Event()

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Look from a thread for as long as the block runs."""
        thread = threading.Thread(target=self._keep_looking, name="served-quality", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(_JOIN_S)

    def look(self, now: float) -> dict[Served, float]:
        """Judge each class of each checkpoint of which enough was served; the KIDs that were written.

        now: epoch seconds. Raises RedisError.
        """
        found = {}
        in_use: set[str] = set()
        for served, shards in self._newest_shards().items():
            features = self._features_of(shards, in_use)
            real = self._real_features(served)
            if real is None or len(features) < MIN_IMAGES or self._stopping.is_set():
                continue
            from training.evaluation.kernel import kid

            distance = kid(features, real)
            row = {"kid": distance.value, "kid_sd": distance.sd, "n": len(features), "at": now}
            self._redis.hset(keys.SERVED_QUALITY, ":".join(served), json.dumps(row))
            found[served] = distance.value
        self._features = {digest: self._features[digest] for digest in in_use if digest in self._features}
        return found

    def _keep_looking(self) -> None:
        while not self._stopping.wait(min(self._interval_s, 5.0)):
            try:
                # One process of the fleet is enough; the lock lasts until the next look is due.
                if self._redis.set(_LOCK, "1", nx=True, px=int(self._interval_s * 1000)):
                    self.look(time.time())
            except RedisError as error:
                logger.warning("served images not judged", extra={"reason": f"Redis: {error}"})
            except Exception:
                logger.exception("served images could not be judged")

    def _newest_shards(self) -> dict[Served, list[tuple[ShardRef, ChunkResult]]]:
        """For each class of each checkpoint its newest chunks, as many as the window holds."""
        job_ids = cast("list[str]", self._redis.zrevrange(keys.JOB_INDEX, 0, _JOBS_LOOKED_AT - 1))
        newest: dict[Served, list[tuple[ShardRef, ChunkResult]]] = {}
        images: dict[Served, int] = {}
        for job_id in job_ids:
            record = self._ledger.record(job_id)
            if record is None:
                continue
            reference = JobSpec.model_validate_json(record["spec"]).model.reference
            for index, chunk in reversed(self._ledger.done_chunks(job_id).items()):
                served = (chunk.class_slug, reference)
                if images.get(served, 0) < WINDOW_IMAGES:
                    newest.setdefault(served, []).append(((job_id, index), chunk))
                    images[served] = images.get(served, 0) + chunk.count
        return {served: newest[served] for served, count in images.items() if count >= MIN_IMAGES}

    def _features_of(
        self, shards: list[tuple[ShardRef, ChunkResult]], in_use: set[str]
    ) -> npt.NDArray[np.float32]:
        """Features [N, F]; of shards that are gone by now, none."""
        parts = []
        for (job_id, index), chunk in shards:
            if self._stopping.is_set():
                break
            if chunk.shard_sha256 not in self._features:
                try:
                    content = self._results.read(keys.shard_path(job_id, index))
                    self._features[chunk.shard_sha256] = self._embed(_images(content))
                except (OSError, ValueError, tarfile.TarError) as error:
                    extra = {"job_id": job_id, "chunk_index": index, "reason": str(error)}
                    logger.info("shard not judged", extra=extra)
                    continue
            in_use.add(chunk.shard_sha256)
            parts.append(self._features[chunk.shard_sha256])
        return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)

    def _embed(self, images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        if self._extractor is None:
            from model_store.quality.extractors import FeatureExtractor

            self._extractor = FeatureExtractor(0)
        return self._extractor.features(images)

    def _real_features(self, served: Served) -> npt.NDArray[np.float32] | None:
        """[M, F] of the real images of a class; None without a reference set of this extractor."""
        slug, reference = served
        if reference not in self._real:
            self._real[reference] = self._load_reference(reference)
        return self._real[reference].get(slug)

    def _load_reference(self, reference: str) -> dict[str, npt.NDArray[np.float32]]:
        from model_store.quality.reference_set import load_reference_set

        if self._extractor is None:
            return {}
        try:
            kept = load_reference_set(self._store, self._store.resolve(reference))
        except (ModelStoreError, OSError) as error:
            logger.info("served images not judged", extra={"model": reference, "reason": str(error)})
            return {}
        if not any(info.sha256 == self._extractor.sha256 for info in kept.info.extractors):
            return {}
        features = kept.features[self._extractor.name]
        return {slug: features[kept.labels == index] for index, slug in enumerate(kept.info.classes)}


def _images(shard: bytes) -> list[npt.NDArray[np.uint8]]:
    """Decoded images [H, W, 3] of a shard. Raises ValueError, OSError, TarError."""
    images = []
    with tarfile.open(fileobj=io.BytesIO(shard)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB")))
    return images
