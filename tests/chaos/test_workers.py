"""Workers that are killed or frozen in the middle of a chunk."""

import signal
import time
from typing import cast

import pytest

from tests.chaos.conftest import IMAGES, Record, Undisturbed
from tests.chaos.stack import (
    Process,
    ServiceProcess,
    Stack,
    digests,
    download,
    eventually,
    submit,
    wait_until_succeeded,
)
from worker.contract import keys

RECOVERY_S = 20.0
"""Heartbeats stop counting after 10 s, the reaper looks every few seconds, and the chunk is made again."""


def counters(stack: Stack) -> dict[str, int]:
    """What is counted once for each image and job."""
    rows = cast("dict[str, str]", stack.redis.hgetall(keys.COUNTERS))
    return {
        name: int(count) for name, count in rows.items() if name.startswith(("images:", "jobs:", "chunks:"))
    }


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)
    }


ONE_JOB = {"images:pro_b:tiny@1": IMAGES, "jobs:succeeded:pro_b": 1}


def test_two_workers_killed_in_one_job(
    stack: Stack,
    service: ServiceProcess,
    two_workers: list[Process],
    undisturbed: Undisturbed,
    record: Record,
) -> None:
    before = counters(stack)
    job_id = submit(service.http, IMAGES)
    lost = [stack.kill_in_chunk(worker) for worker in two_workers]
    killed_at = time.monotonic()
    stack.start_worker(wait=False)
    eventually(lambda: all(stack.is_done(*chunk) for chunk in lost))
    seconds = time.monotonic() - killed_at

    job = wait_until_succeeded(service.http, job_id)

    record("SIGKILL of both workers, each in a chunk; a third starts: until both chunks were made", seconds)
    assert seconds < RECOVERY_S
    assert digests(download(service.http, job_id)) == undisturbed.digests
    assert job["progress"]["done"] == IMAGES
    assert grown(before, counters(stack)).items() >= ONE_JOB.items()


def test_the_only_worker_killed_and_started_again_under_its_name(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    job_id = submit(service.http, IMAGES)
    lost = stack.kill_in_chunk(one_worker)
    killed_at = time.monotonic()
    stack.start_worker(name=one_worker.name, wait=False)
    eventually(lambda: stack.is_done(*lost))
    seconds = time.monotonic() - killed_at

    wait_until_succeeded(service.http, job_id)

    record("SIGKILL of the only worker in a chunk, started again: until the chunk was made", seconds)
    assert seconds < RECOVERY_S
    assert digests(download(service.http, job_id)) == undisturbed.digests


@pytest.mark.timeout(120)
def test_a_frozen_worker_s_late_result_changes_nothing(
    stack: Stack,
    service: ServiceProcess,
    two_workers: list[Process],
    undisturbed: Undisturbed,
    record: Record,
) -> None:
    before = counters(stack)
    frozen, _ = two_workers
    job_id = submit(service.http, IMAGES)
    lost = stack.freeze_in_chunk(frozen)
    frozen_at = time.monotonic()
    eventually(lambda: stack.is_done(*lost))
    seconds = time.monotonic() - frozen_at
    wait_until_succeeded(service.http, job_id)
    archive, counted = download(service.http, job_id), counters(stack)

    ended = len(frozen.messages("chunk ended"))
    frozen.signal(signal.SIGCONT)
    eventually(lambda: len(frozen.messages("chunk ended")) > ended)
    time.sleep(1)

    record("SIGSTOP of one of two workers in a chunk: until the other had made the chunk", seconds)
    assert seconds < RECOVERY_S
    assert digests(archive) == undisturbed.digests
    assert grown(before, counted).items() >= ONE_JOB.items()
    assert counters(stack) == counted
    assert download(service.http, job_id) == archive
