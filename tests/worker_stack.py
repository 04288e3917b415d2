"""For tests of the worker: a queue, a store, a results folder, and jobs submitted as the service does it."""

import json
import time
from pathlib import Path
from typing import Any

from redis import Redis

from model_store.store import Checkpoint, ModelStore
from worker.contract import keys
from worker.contract.chunk_queue import enqueue_chunk, open_queue
from worker.contract.ledger import JobLedger
from worker.contract.messages import ClassCount, ImageRow, JobSpec, ModelRef
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from written_jobs import write_job

NO_GUARD_S = 3_600.0
"""A worker ends the process that it hangs in: here that is pytest's, whose own limit tells where."""


class Stack:
    """One Valkey, one model store, one result store. `redis` must decode responses to str."""

    def __init__(self, redis_url: str, redis: "Redis", store: ModelStore, folder: Path) -> None:
        self.redis = redis
        self.store = store
        self.results = folder / "results"
        self.ledger = JobLedger(redis)
        self.redis_url = redis_url
        self.queue = open_queue(Redis.from_url(redis_url))

    def settings(self, **changes: Any) -> WorkerSettings:
        """Settings of a worker of this stack."""
        fields: dict[str, Any] = {
            "redis_url": self.redis_url,
            "model_store_url": self.store.url,
            "result_store_url": str(self.results),
            "default_model": "tiny",
            "device": "cpu",
            "threads": 1,
            "encode_threads": 1,
            "micro_batch_timeout_s": NO_GUARD_S,
        }
        return WorkerSettings(**fields | changes)

    def submit(self, checkpoint: Checkpoint, n: int, *, job_id: str = "job_1", **changes: Any) -> JobSpec:
        """Write a job of `n` pro_b images and enqueue its first window."""
        manifest = checkpoint.manifest
        fields: dict[str, Any] = {
            "job_id": job_id,
            "model": ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest),
            "parts": (ClassCount(class_slug="pro_b", class_index=1, count=n),),
            "seed": 7,
            "chunk_images": 8,
        }
        spec = JobSpec(**fields | changes)
        now = time.time()
        write_job(self.redis, spec, now=now, expires_at=now + 3600)
        for chunk in list(spec.chunks())[: spec.window]:
            enqueue_chunk(self.queue, chunk)
        return spec

    def work(self, **changes: Any) -> WorkerProcess:
        """Run a worker until the queue is empty."""
        process = WorkerProcess(self.settings(**changes))
        assert process.run(burst=True) == 0
        return process

    def rows(self, spec: JobSpec) -> list[ImageRow]:
        """Image rows of all chunks there are, in order."""
        lines = [
            line
            for chunk in spec.chunks()
            if (path := self.results / keys.sidecar_path(spec.job_id, chunk.chunk_index)).exists()
            for line in path.read_text().splitlines()
        ]
        return [ImageRow.model_validate_json(line) for line in lines]

    def error(self, spec: JobSpec) -> dict[str, str]:
        """Why a job failed: {code, message}."""
        record = self.ledger.record(spec.job_id)
        assert record is not None
        error: dict[str, str] = json.loads(record["error"])
        return error

    def close(self) -> None:
        """Close the queue's connection."""
        self.queue.connection.close()
