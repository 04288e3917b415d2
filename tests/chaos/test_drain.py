"""SIGTERM: a worker puts its chunk down, a service lets its clients finish, both within their grace."""

import httpx

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
from tests.meanwhile import meanwhile
from worker.contract import keys

GRACE_S = 15.0
"""What a supervisor grants before it kills."""


def test_worker_told_to_stop_in_a_chunk(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    job_id = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, job_id))
    code, seconds = one_worker.stop(GRACE_S)
    waiting = stack.redis.lrange(f"rq:queue:{keys.CHUNK_QUEUE}", 0, -1)
    started = stack.redis.zcard(f"rq:wip:{keys.CHUNK_QUEUE}")
    stack.crew(1)

    wait_until_succeeded(service.http, job_id)

    record("SIGTERM of a worker in a chunk: until its process had ended", seconds)
    assert code == 0
    assert waiting
    assert started == 0
    assert digests(download(service.http, job_id)) == undisturbed.digests


def test_service_told_to_stop_while_clients_wait_and_download(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    job_id = submit(service.http, IMAGES)
    answers: list[httpx.Response] = []

    def wait_for_change() -> None:
        answers.append(service.http.get(f"/jobs/{job_id}", headers={"Prefer": "wait=50"}))

    with (
        meanwhile(wait_for_change),
        httpx.Client(base_url=service.http.base_url, timeout=30, trust_env=False) as http,
    ):
        with http.stream("GET", f"/jobs/{undisturbed.job_id}/result") as response:
            blocks = response.iter_bytes(65_536)
            archive = next(blocks)
            service.terminate()
            archive += b"".join(blocks)
        code, seconds = service.stop(GRACE_S)
    restarted = stack.start_service(port=service.port)

    wait_until_succeeded(restarted.http, job_id)

    record("SIGTERM of a service with a download and a long poll open: until its process had ended", seconds)
    assert code == 0
    assert archive == undisturbed.archive
    assert [answer.status_code for answer in answers] == [httpx.codes.OK]
    assert digests(download(restarted.http, job_id)) == undisturbed.digests
