"""What jobs and chunks cost Redis: commands, memory, and how many of them one Valkey takes in a second."""

import json
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty
from typing import Any, cast

from redis import Redis

from model_store.store import ModelStore
from scaling.fleet import CLASS, FORK, MODEL, Fleet
from scaling.recording import JOB_MARK, Replay, recorded, replay
from service.jobs.queues import JobQueue
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ClassCount, JobSpec, ModelRef
from written_jobs import write_job

_CHUNKS = 16
_WINDOW = 2
_SUBMITS = 40
_CONNECTIONS = 8
_REPLAY_S = 2.0
_WORKER_S = 60.0
_ASKING = frozenset({"info", "flushall", "memory", "auth", "hello", "client", "ping", "select"})
"""Commands of whoever measures, or of a connection's first moment."""


@dataclass(frozen=True, slots=True)
class ChunkLife:
    """What one chunk of `images` images costs, with its share of its job; see `life_of_chunks`.

    sent, round_trips: by the processes. executed: by Valkey, with what scripts call. Bytes of its memory:
    job_bytes of a job without its chunks; of each chunk queued_bytes while it waits, made_bytes for a minute
    after it was made; of these, done_bytes until the job's images expire, event_bytes a week longer. bursts:
    of `chunks` chunks.
    """

    images: int
    chunks: int
    sent: float
    round_trips: float
    executed: float
    job_bytes: float
    queued_bytes: float
    made_bytes: float
    done_bytes: float
    event_bytes: float
    bursts: list[tuple[bytes, int]]


@dataclass(frozen=True, slots=True)
class Load:
    """What Valkey took. valkey_core: share of one core that its main thread was busy."""

    chunks_per_second: float
    commands_per_second: float
    valkey_core: float

    @property
    def chunks_per_core(self) -> float:
        """Chunks/s at which a core would be busy all the time."""
        return self.chunks_per_second / self.valkey_core

    @property
    def cpu_us_per_chunk(self) -> float:
        return 1e6 * self.valkey_core / self.chunks_per_second


def submit_cost(fleet: Fleet) -> list[tuple[int, float]]:
    """(jobs that wait already, commands of one POST /generate), for few and for more."""
    manifest = ModelStore(str(fleet.folder / "store")).resolve(MODEL).manifest
    entry = {
        "state": "idle",
        "device": "cpu",
        "model": manifest.name,
        "version": manifest.version,
        "digest": manifest.digest,
        "images_per_second": 20.0,
        "heartbeat": time.time(),
    }
    fleet.redis.hset(keys.WORKERS, "nobody", json.dumps(entry))  # so that jobs are accepted, and wait
    costs: list[tuple[int, float]] = []
    job_ids: list[str] = []
    for _ in range(2):
        waiting, before = len(job_ids), _executed(fleet.redis)
        job_ids += [fleet.submit(1, priority="batch") for _ in range(_SUBMITS)]
        costs.append((waiting + _SUBMITS // 2, (_executed(fleet.redis) - before) / _SUBMITS))
    for job_id in job_ids:
        fleet.http.delete(f"/jobs/{job_id}").raise_for_status()
    fleet.redis.hdel(keys.WORKERS, "nobody")
    return costs


def idle_commands(fleet: Fleet, pictures: Path) -> int:
    """What Valkey executes for a worker that starts, finds no chunk and ends."""
    fleet.redis.flushall()
    return _empty_queue(fleet, pictures, 1)[1]


def life_of_chunks(fleet: Fleet, images: int, pictures: Path, micro_batch: int, idle: int) -> ChunkLife:
    """Write jobs as the service does, let a worker without a generator empty the queue, and count.

    One job of several chunks; of chunks of one image, as many jobs. The reads with which the service admits a
    job are not in it. Nobody else may use Valkey meanwhile.
    """
    redis = fleet.redis
    redis.flushall()
    jobs = _CHUNKS if images == 1 else 1
    specs = [_spec(fleet, number, images, _CHUNKS // jobs) for number in range(jobs)]
    ledger, queue = JobLedger(redis), JobQueue(Redis.from_url(fleet.valkey_url))
    _load_scripts(ledger, queue, _spec(fleet, 999, images, 1))
    now, before, memory = time.time(), _executed(redis), list[int]()
    with recorded() as bursts:
        for spec in specs:
            write_job(redis, spec, now=now, expires_at=now + 3600)
        job_bytes = _bytes_of(
            redis, [key(spec.job_id) for spec in specs for key in (keys.job_key, keys.events_key)]
        )
        memory.append(_memory(redis))
        for spec in specs:
            queue.enqueue(islice(spec.chunks(), spec.window), at_front=False)
        memory.append(_memory(redis))
    written = _executed(redis) - before
    sent = [(burst.data, burst.commands) for burst in bursts if JOB_MARK in burst.data]
    made, executed = _empty_queue(fleet, pictures, micro_batch)
    sent += made
    memory.append(_memory(redis))
    if any(ledger.status(spec.job_id) != "succeeded" for spec in specs):
        raise RuntimeError(f"a job of {images} images a chunk has not succeeded; see {_log(fleet)}")
    queue.close()
    return ChunkLife(
        images=images,
        chunks=_CHUNKS,
        sent=sum(commands for _, commands in sent) / _CHUNKS,
        round_trips=len(sent) / _CHUNKS,
        executed=(written + executed - idle) / _CHUNKS,
        job_bytes=job_bytes / jobs,
        queued_bytes=(memory[1] - memory[0]) / sum(min(spec.window, spec.chunk_count) for spec in specs),
        made_bytes=(memory[2] - memory[0]) / _CHUNKS,
        done_bytes=_bytes_of(redis, [keys.done_key(spec.job_id) for spec in specs]) / _CHUNKS,
        event_bytes=_bytes_of(redis, [keys.events_key(spec.job_id) for spec in specs]) / _CHUNKS,
        bursts=sent,
    )


def _empty_queue(fleet: Fleet, pictures: Path, micro_batch: int) -> tuple[list[tuple[bytes, int]], int]:
    """What a worker sent for the chunks it found, and how many commands Valkey executed from its start on."""
    from scaling.paced import record_burst

    before = _executed(fleet.redis)
    answers: Any = FORK.Queue()
    arguments = (fleet.worker_settings("recorded"), str(pictures), micro_batch, _log(fleet), answers)
    worker = FORK.Process(target=record_burst, args=arguments, daemon=True)
    worker.start()
    try:
        made: list[tuple[bytes, int]] = answers.get(timeout=_WORKER_S)
    except Empty:
        raise RuntimeError(f"the worker did not empty the queue; see {_log(fleet)}") from None
    finally:
        worker.terminate()
        worker.join()
    return made, _executed(fleet.redis) - before


def saturate(fleet: Fleet, life: ChunkLife, processes: int, *, is_pipelined: bool) -> Load:
    """Replay the recorded life from so many processes at once."""
    redis = fleet.redis
    redis.flushall()
    answers: Any = FORK.Queue()
    ready = FORK.Barrier(processes + 1)
    plan = Replay(fleet.valkey_url, life.bursts, _CONNECTIONS, _REPLAY_S, is_pipelined)
    clients = [
        FORK.Process(target=replay, args=(plan, number, ready, answers), daemon=True)
        for number in range(processes)
    ]
    for client in clients:
        client.start()
    ready.wait(_WORKER_S)
    started, cpu, commands = time.monotonic(), _main_thread_seconds(redis), _executed(redis)
    results: list[tuple[int, int]] = [answers.get(timeout=_WORKER_S) for _ in clients]
    elapsed = time.monotonic() - started
    cpu, commands = _main_thread_seconds(redis) - cpu, _executed(redis) - commands
    for client in clients:
        client.join()
    if refused := sum(errors for _, errors in results):
        raise RuntimeError(f"Valkey refused {refused} of the recorded commands")
    lives = sum(times for times, _ in results)
    return Load(lives * life.chunks / elapsed, commands / elapsed, cpu / elapsed)


def _spec(fleet: Fleet, number: int, images: int, chunks: int) -> JobSpec:
    manifest = ModelStore(str(fleet.folder / "store")).resolve(MODEL).manifest
    return JobSpec(
        job_id=f"job_{JOB_MARK.decode()}{images:03}{number:015}",
        model=ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest),
        parts=(ClassCount(class_slug=CLASS, class_index=manifest.class_index(CLASS), count=images * chunks),),
        seed=7,
        chunk_images=images,
        window=_WINDOW,
    )


def _load_scripts(ledger: JobLedger, queue: JobQueue, spec: JobSpec) -> None:
    """Scripts and connections take memory too, once."""
    write_job(ledger.redis, spec, now=time.time(), expires_at=time.time() + 60)
    queue.enqueue(spec.chunks(), at_front=False)
    ledger.redis.flushall()


def _log(fleet: Fleet) -> str:
    return str(fleet.folder / "logs" / "recorded-worker.log")


def _executed(redis: "Redis") -> int:
    stats = cast("dict[str, dict[str, int]]", redis.info("commandstats"))
    calls = {name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()}
    return sum(count for name, count in calls.items() if name.partition("|")[0] not in _ASKING)


def _memory(redis: "Redis") -> int:
    return int(redis.info("memory")["used_memory"])


def _bytes_of(redis: "Redis", names: list[str]) -> int:
    return sum(int(redis.memory_usage(name, samples=0) or 0) for name in names)


def _main_thread_seconds(redis: "Redis") -> float:
    cpu = cast("dict[str, float]", redis.info("cpu"))
    return float(cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"])
