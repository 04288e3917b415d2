"""Valkey that stands still, and Valkey that is killed and started again on its append-only file."""

import signal
import time

import httpx
import pytest

from tests.chaos.conftest import IMAGES, Record, Undisturbed
from tests.chaos.stack import (
    Process,
    ServiceProcess,
    Stack,
    digests,
    done,
    download,
    eventually,
    submit,
    wait_until_succeeded,
)

OUTAGE_S = 20.0
pytestmark = pytest.mark.timeout(180)


def test_valkey_stands_still_for_20_s(
    stack: Stack,
    service: ServiceProcess,
    two_workers: list[Process],
    undisturbed: Undisturbed,
    record: Record,
) -> None:
    job_id = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, job_id))
    stack.valkey_process.signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    refused = service.http.post("/generate", params={"class": "pro_b", "n": 4})
    refused_after = time.monotonic() - stopped_at
    time.sleep(max(0.0, OUTAGE_S - (time.monotonic() - stopped_at)))
    stack.resume_valkey()
    resumed_at = time.monotonic()
    before = stack.done(job_id)
    eventually(lambda: stack.done(job_id) > before)
    seconds = time.monotonic() - resumed_at

    job = wait_until_succeeded(service.http, job_id)

    record("SIGSTOP of Valkey for 20 s in the middle of a job: until the job made progress again", seconds)
    assert refused_after < 12
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert job["progress"]["done"] == IMAGES
    assert digests(download(service.http, job_id)) == undisturbed.digests
    assert all(worker.is_running for worker in two_workers)


def test_valkey_is_killed_and_comes_back_with_its_append_only_file(
    stack: Stack,
    service: ServiceProcess,
    two_workers: list[Process],
    undisturbed: Undisturbed,
    record: Record,
) -> None:
    job_id = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, job_id))
    stack.valkey_process.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    stack.valkey_process.wait(killed_at + 10)
    stack.restart_valkey()
    before = stack.done(job_id)
    eventually(lambda: stack.done(job_id) > before)
    seconds = time.monotonic() - killed_at

    job = wait_until_succeeded(service.http, job_id)

    record(
        "SIGKILL of Valkey in the middle of a job, started again: until the job made progress again", seconds
    )
    assert job["progress"]["done"] == IMAGES
    assert digests(download(service.http, job_id)) == undisturbed.digests
    assert all(worker.is_running for worker in two_workers)


def test_valkey_loses_its_last_seconds(
    stack: Stack,
    service: ServiceProcess,
    one_worker: Process,
    undisturbed: Undisturbed,
    record: Record,
) -> None:
    """As a machine that loses power: the file ends where it was last flushed, in the middle of the job."""
    job_id = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, job_id))
    flushed = stack.append_only_files()
    first = done(service.http, job_id)
    eventually(lambda: done(service.http, job_id) > first)
    stack.valkey_process.signal(signal.SIGKILL)
    killed_at = time.monotonic()
    stack.valkey_process.wait(killed_at + 10)
    for path, size_bytes in flushed.items():
        with path.open("r+b") as file:
            file.truncate(size_bytes)
    stack.restart_valkey()
    rolled_back = stack.done(job_id)
    eventually(lambda: stack.done(job_id) > first)
    seconds = time.monotonic() - killed_at

    job = wait_until_succeeded(service.http, job_id)

    record("Valkey lost its last seconds of writes: until the chunks it forgot were made again", seconds)
    assert 0 < rolled_back <= first
    assert job["progress"]["done"] == IMAGES
    assert digests(download(service.http, job_id)) == undisturbed.digests
    assert one_worker.is_running
