"""A running service for tests: real HTTP, a real Valkey, a real store; a hand that plays the worker."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import uvicorn
from redis import Redis

from model_store.image_id import ImageId
from model_store.manifest import FileEntry
from model_store.report import (
    ClassFigures,
    ExtractorReport,
    MeanFigures,
    QualityReport,
)
from model_store.store import Checkpoint, ModelStore
from model_store.weights import WEIGHTS_FILE, encode_weights
from service.app import create_app
from service.settings import ServiceSettings
from tests.checkpoints import CLASSES, build_tiny, describe, tiny_config
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkRequest, ChunkResult, JobSpec
from worker.encode import EncodedImage, encode_image
from worker.results import Provenance, ResultStore, pack_shard

SIZE_PX = 16


@dataclass
class Clock:
    """Time that a test may move."""

    offset_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset_s


@dataclass
class Service:
    """A service that listens on loopback, and what stands behind it."""

    client: httpx.Client
    redis: "Redis"
    settings: ServiceSettings
    checkpoint: Checkpoint
    clock: Clock = field(default_factory=Clock)

    @property
    def ledger(self) -> JobLedger:
        return JobLedger(self.redis)

    def register_worker(self, name: str = "w1", *, speed: float = 8.0, **changes: object) -> None:
        """Let a warm worker appear in the registry."""
        manifest = self.checkpoint.manifest
        entry = {
            "state": "idle",
            "device": "cpu",
            "model": manifest.name,
            "version": manifest.version,
            "digest": manifest.digest,
            "images_per_second": speed,
            "heartbeat": self.clock(),
            "pid": 1,
            "error": None,
        }
        self.redis.hset(keys.WORKERS, name, json.dumps(entry | changes))

    def submit(self, **parameters: str | int | float) -> dict[str, object]:
        """The body of an accepted job."""
        asked: dict[str, str | int | float] = {"class": "pro_b", "n": 10}
        response = self.client.post("/generate", params=asked | parameters)
        assert response.status_code == 202, response.text
        body: dict[str, object] = response.json()
        return body

    def spec(self, job_id: str) -> JobSpec:
        record = self.ledger.record(job_id)
        assert record is not None
        return JobSpec.model_validate_json(record["spec"])

    def make_chunk(self, request: ChunkRequest) -> None:
        """Write a chunk's shard and mark it done, as a worker does."""
        provenance = Provenance(request.model.reference, request.model.digest, "none", "cpu")
        shard = pack_shard(request, [_encoded(request, index) for index in _indices(request)], provenance)
        ResultStore(self.settings.result_store_url).write(request, shard)
        self.ledger.start(request.job_id, now=self.clock())
        result = ChunkResult(
            chunk_index=request.chunk_index,
            class_slug=request.class_slug,
            count=request.count,
            shard_sha256=shard.sha256,
            sidecar_sha256=shard.sidecar_sha256,
            shard_bytes=len(shard.tar),
            stored_bytes=shard.size_bytes,
            seconds=0.5,
        )
        self.ledger.finish_chunk(request.job_id, request.model.reference, result, now=self.clock())

    def finish(self, job_id: str) -> None:
        """Make every chunk of a job."""
        for request in self.spec(job_id).chunks():
            self.make_chunk(request)

    def finished_job(self, n: int = 10, seed: int = 7, **parameters: str | int | float) -> str:
        """Id of a job that has succeeded."""
        job_id = str(self.submit(n=n, seed=seed, **parameters)["id"])
        self.finish(job_id)
        return job_id

    def metric(self, sample: str) -> float:
        """Value of one sample, spelled as in the exposition."""
        lines = self.client.get("/metrics").text.splitlines()
        values = [line.removeprefix(sample) for line in lines if line.startswith(f"{sample} ")]
        assert len(values) == 1, f"{sample}: {values}"
        return float(values[0])

    def shard_file(self, job_id: str, chunk_index: int) -> Path:
        return Path(self.settings.result_store_url) / keys.shard_path(job_id, chunk_index)


def _indices(request: ChunkRequest) -> range:
    return range(request.start, request.start + request.count)


def _encoded(request: ChunkRequest, index: int) -> EncodedImage:
    image_id = ImageId(request.model.digest, request.class_slug, request.seed, index)
    noise = hashlib.shake_256(str(image_id).encode()).digest(SIZE_PX * SIZE_PX * 3)
    pixels = np.frombuffer(noise, np.uint8).reshape(SIZE_PX, SIZE_PX, 3)
    return encode_image(pixels, image_id, request.encoding)


def publish(store_url: str) -> Checkpoint:
    """`tiny@1` with a quality report, in production."""
    config = tiny_config(SIZE_PX)
    weights = encode_weights(build_tiny(config))
    manifest = describe("tiny", "1", weights, config)
    report = quality_report(manifest.digest).model_dump_json().encode()
    entry = FileEntry(path="report.json", sha256=hashlib.sha256(report).hexdigest(), size_bytes=len(report))
    store = ModelStore(store_url)
    checkpoint = store.publish(
        manifest.model_copy(update={"reports": (entry,)}), {WEIGHTS_FILE: weights, "report.json": report}
    )
    store.promote("tiny", "1")
    return checkpoint


def quality_report(
    digest: str, extractor: str = "efficientnet-lite0", sha256: str = "a" * 64
) -> QualityReport:
    """Made-up figures in the shape of real ones."""

    def judged(name: str, weights: str, distance: float) -> ExtractorReport:
        figures = ClassFigures(
            n_real=100, n_fake=100, frechet_distance=distance, floor=8.0, floor_n=50, kid=0.05, kid_sd=0.01
        )
        return ExtractorReport(
            extractor=name,
            extractor_sha256=weights,
            preprocessing="uint8 RGB, bicubic",
            reference_digest="b" * 64,
            classes=dict.fromkeys(CLASSES, figures),
            mean=MeanFigures(frechet_distance=distance, floor=8.0, kid=0.05),
        )

    return QualityReport(
        digest=digest,
        created_at=datetime(2026, 1, 2, tzinfo=UTC),
        primary=judged(extractor, sha256, 60.5),
        judges=(judged("efficientnet-lite2", "c" * 64, 70.25),),
    )


@contextmanager
def running(settings: ServiceSettings, clock: Clock, checkpoint: Checkpoint) -> Iterator[Service]:
    """Serve on a free port of loopback until the block ends."""
    app = create_app(settings, clock=clock)
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the service did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client,
            Redis.from_url(settings.redis_url, decode_responses=True) as redis,
        ):
            yield Service(client, redis, settings, checkpoint, clock)
    finally:
        app.state.services.stopping.set()  # as the process does at a signal
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
