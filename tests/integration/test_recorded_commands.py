"""What benchmarks/scale.py counts and sends again: recorded from real clients, replayed on a real Valkey."""

import threading
import time
from queue import SimpleQueue
from typing import Any

import pytest
from redis import Redis

from scaling.recording import JOB_MARK, Replay, recorded, replay
from service.jobs.queues import JobQueue
from worker.contract import keys
from worker.contract.messages import ClassCount, JobSpec, ModelRef
from written_jobs import write_job

pytestmark = pytest.mark.integration


def spec_of(number: int) -> JobSpec:
    return JobSpec(
        job_id=f"job_{JOB_MARK.decode()}{number:018}",
        model=ModelRef(name="tiny", version="1", digest="0" * 64),
        parts=(ClassCount(class_slug="pro_b", class_index=1, count=8),),
        seed=7,
        chunk_images=8,
    )


def submit(redis_url: str, redis: "Redis", number: int) -> None:
    """A job's record and its one chunk, as the service writes them."""
    spec = spec_of(number)
    queue = JobQueue(Redis.from_url(redis_url))
    write_job(redis, spec, now=time.time(), expires_at=time.time() + 60)
    queue.enqueue(spec.chunks(), at_front=False)
    queue.close()


def calls(redis: "Redis", command: str) -> int:
    stats = redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def bursts_of_a_submit(redis_url: str, redis: "Redis") -> list[tuple[bytes, int]]:
    submit(redis_url, redis, 1)  # scripts are loaded, once
    with recorded() as bursts:
        submit(redis_url, redis, 2)
    return [(burst.data, burst.commands) for burst in bursts if JOB_MARK in burst.data]


def test_recorded_commands_are_those_that_the_server_counts(redis_url: str, redis: "Redis") -> None:
    submit(redis_url, redis, 1)
    before = calls(redis, "evalsha")
    with recorded() as bursts:
        submit(redis_url, redis, 2)

    sent = sum(burst.data.count(b"EVALSHA") for burst in bursts)
    assert sent == calls(redis, "evalsha") - before > 0
    assert all(burst.commands >= 1 for burst in bursts)
    assert not any(b"AUTH" in burst.data or b"HELLO" in burst.data for burst in bursts)


@pytest.mark.parametrize("is_pipelined", [False, True])
def test_replay_writes_each_job_anew(redis_url: str, redis: "Redis", is_pipelined: bool) -> None:
    bursts = bursts_of_a_submit(redis_url, redis)
    redis.flushall()
    answers: Any = SimpleQueue()
    plan = Replay(redis_url, bursts, connections=2, seconds=0.2, is_pipelined=is_pipelined)

    replay(plan, 0, threading.Barrier(1), answers)  # type: ignore[arg-type]

    times, refused = answers.get()
    assert refused == 0
    assert times >= 2
    assert redis.zcard(keys.EXPIRY_INDEX) == times
    queued = [redis.llen(f"rq:queue:c{number:05}") for number in range(2)]
    assert sum(queued) == times


def test_replay_counts_what_the_server_refuses(redis_url: str, redis: "Redis") -> None:
    redis.set("text", "no list")
    answers: Any = SimpleQueue()
    bursts = [(b"*2\r\n$4\r\nLLEN\r\n$4\r\ntext\r\n", 1)]

    replay(Replay(redis_url, bursts, 1, 0.05, False), 0, threading.Barrier(1), answers)  # type: ignore[arg-type]

    times, refused = answers.get()
    assert refused == times > 0
