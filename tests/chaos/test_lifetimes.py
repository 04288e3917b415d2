"""Checkpoints that are replaced, results that expire, and small jobs beside a large one."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import httpx
import pytest

from service.context import Services
from service.reaper import TOMBSTONE_S
from service.settings import ServiceSettings
from tests.chaos.conftest import IMAGES, Record, Undisturbed
from tests.chaos.stack import (
    MODEL,
    Process,
    ServiceProcess,
    Stack,
    digests,
    done,
    download,
    eventually,
    job,
    submit,
    wait_until_final,
    wait_until_succeeded,
)
from worker.contract import keys
from worker.contract.messages import JobSpec

DAY_S = 86_400.0


def test_checkpoint_is_replaced_while_a_job_runs(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    digest = {version: stack.store.resolve(f"tiny@{version}").digest for version in ("1", "2")}
    running = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, running))
    stack.store.promote("tiny", "2")
    promoted_at = time.monotonic()
    try:
        # The service knows within seconds; until then new jobs still name the old one.
        new = eventually(lambda: made_by(stack, service, digest["2"]))
        seconds = time.monotonic() - promoted_at
        wait_until_succeeded(service.http, new)
        wait_until_succeeded(service.http, running)
        old, fresh = download(service.http, running), download(service.http, new)
    finally:
        stack.store.promote("tiny", "1")
    eventually(lambda: made_by(stack, service, digest["1"]))

    record("A checkpoint was promoted while a job ran: until a new job was made with it", seconds)
    assert digests(old) == undisturbed.digests
    assert {image_id.partition(".")[0] for image_id in digests(fresh)} == {digest["2"][:16]}
    assert one_worker.is_running
    assert service.is_running


def made_by(stack: Stack, service: ServiceProcess, digest: str) -> str | None:
    """A new small job, if the alias gave it that checkpoint. Any other is canceled."""
    job_id = submit(service.http, 4)
    spec = JobSpec.model_validate_json(str(stack.redis.hget(keys.job_key(job_id), "spec")))
    if spec.model.digest == digest:
        return job_id
    service.http.post(f"/jobs/{job_id}/cancel")
    wait_until_final(service.http, job_id)
    time.sleep(0.5)
    return None


@pytest.fixture
def services(stack: Stack, service: ServiceProcess) -> Iterator[Services]:
    """The parts of one more service, to be told what time it is. The others' own reapers do nothing wrong."""
    settings = ServiceSettings(
        redis_url=stack.valkey.url,
        model_store_url=stack.store.url,
        result_store_url=str(stack.results),
        default_model=MODEL,
        signing_key_file=stack.folder / "run" / "signing_key.pem",
    )
    services = Services.build(settings, time.time)
    yield services
    services.close()


@contextmanager
def others_kept(stack: Stack, job_id: str) -> Iterator[None]:
    """Let no job but this one expire: the others are still needed when the clock is right again."""
    rows = stack.redis.zrange(keys.EXPIRY_INDEX, 0, -1, withscores=True)
    others = {name: score for name, score in cast("list[tuple[str, float]]", rows) if name != job_id}
    if others:
        stack.redis.zadd(keys.EXPIRY_INDEX, dict.fromkeys(others, time.time() + 30 * DAY_S))
    yield
    if others:
        stack.redis.zadd(keys.EXPIRY_INDEX, dict(others))


def test_results_expire_by_the_clock_that_the_reaper_is_given(
    stack: Stack, service: ServiceProcess, services: Services, one_worker: Process
) -> None:
    finished = submit(service.http, 4)
    wait_until_succeeded(service.http, finished)
    archive, folder = download(service.http, finished), stack.results / finished
    kept = {path.name for path in stack.results.iterdir()}
    now = time.time()

    def round_at(when: float) -> None:
        eventually(lambda: services.reaper.run_once(when))  # the service's own rounds come between

    with others_kept(stack, finished):
        round_at(now - DAY_S)
        assert download(service.http, finished) == archive
        round_at(now + DAY_S - 60)
        assert download(service.http, finished) == archive
        assert {path.name for path in stack.results.iterdir()} == kept
        round_at(now + DAY_S + 60)
    gone = service.http.get(f"/jobs/{finished}/result")
    # For a clock that is a day ahead the workers were long dead; they are there again with their next beat.
    eventually(lambda: service.http.get("/readyz").status_code == httpx.codes.OK)

    assert gone.status_code == httpx.codes.GONE
    assert "seed=7" in gone.json()["detail"]
    assert not folder.exists()
    assert {path.name for path in stack.results.iterdir()} == kept - {finished}
    assert 0 < stack.redis.ttl(keys.job_key(finished)) <= TOMBSTONE_S


@pytest.mark.timeout(120)
def test_a_job_of_50000_images_delays_a_small_one_by_no_more_than_its_window(
    stack: Stack, service: ServiceProcess, one_worker: Process, record: Record
) -> None:
    large = submit(service.http, 50_000)
    eventually(lambda: done(service.http, large))
    window = stack.redis.llen(f"rq:queue:{keys.CHUNK_QUEUE}")
    spec = JobSpec.model_validate_json(str(stack.redis.hget(keys.job_key(large), "spec")))
    before = stack.done(large)
    submitted_at = time.monotonic()
    interactive = submit(service.http, 16)
    wait_until_succeeded(service.http, interactive)
    front_s, front_chunks = time.monotonic() - submitted_at, (stack.done(large) - before) / spec.chunk_images
    before = stack.done(large)
    submitted_at = time.monotonic()
    batch = submit(service.http, 16, priority="batch")
    wait_until_succeeded(service.http, batch)
    batch_s, batch_chunks = time.monotonic() - submitted_at, (stack.done(large) - before) / spec.chunk_images

    canceled_at = time.monotonic()
    canceled = service.http.post(f"/jobs/{large}/cancel")
    assert canceled.status_code in {httpx.codes.OK, httpx.codes.ACCEPTED}  # OK where the worker was faster
    body = wait_until_final(service.http, large)
    cancel_s = time.monotonic() - canceled_at

    record("16 interactive images behind a job of 50,000: until they were made", front_s)
    record("16 images of a batch job behind a job of 50,000: until they were made", batch_s)
    record("A job of 50,000 images was canceled in a chunk: until it had ended", cancel_s)
    assert window <= spec.window
    assert front_chunks <= 2
    assert batch_chunks <= spec.window + 1
    assert body["status"] == "canceled"
    assert cancel_s < 3
    # The worker goes on with other jobs, and finishes nothing of this one that was not counted.
    wait_until_succeeded(service.http, submit(service.http, 4))
    assert stack.redis.llen(f"rq:queue:{keys.CHUNK_QUEUE}") == 0
    eventually(lambda: outcomes(one_worker, large)["done"] == stack.redis.hlen(keys.done_key(large)))
    assert set(outcomes(one_worker, large)) <= {"done", "canceled", "skipped"}
    assert body["progress"]["done"] <= stack.done(large) <= body["progress"]["done"] + spec.chunk_images
    assert job(service.http, large)["progress"]["done"] == stack.done(large)


def outcomes(worker: Process, job_id: str) -> Counter[str]:
    """How many of the job's chunks ended how, as the worker logged it."""
    ended = (entry for entry in worker.messages("chunk ended") if entry["job_id"] == job_id)
    return Counter(str(entry["outcome"]) for entry in ended)
