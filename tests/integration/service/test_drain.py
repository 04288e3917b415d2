"""Draining: the fleet takes no new jobs, a process that is told to stop ends what it has begun."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from masan.processes import free_port
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running
from tests.integration.service.keys_file import ADMIN, LIMITED, auth, keys_file
from tests.meanwhile import meanwhile
from worker.contract import keys

pytestmark = pytest.mark.integration


def drain(service: Service, draining: bool) -> httpx.Response:
    return service.client.post("/admin/drain", json={"draining": draining})


def test_a_drained_fleet_takes_no_jobs_and_goes_on_with_those_it_has(service: Service) -> None:
    job_id = str(service.submit()["id"])
    before = service.metric('masan_admission_rejections_total{reason="draining"}')

    began = drain(service, True)
    refused = service.client.post("/generate?class=pro_b&n=5")
    ready = service.client.get("/readyz")
    service.finish(job_id)

    assert (began.status_code, began.json()["draining"], began.json()["since"] is None) == (200, True, False)
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) > 0
    assert (ready.status_code, [e["name"] for e in ready.json()["errors"]]) == (503, ["drain"])
    assert service.client.get(f"/jobs/{job_id}/result").status_code == 200
    assert service.client.get("/livez").status_code == 200
    assert service.metric('masan_admission_rejections_total{reason="draining"}') == before + 1


def test_jobs_are_accepted_again_when_it_ends(service: Service) -> None:
    drain(service, True)

    ended = drain(service, False)

    assert (ended.json(), service.client.get("/admin/drain").json()) == (
        {"draining": False, "since": None},
        {"draining": False, "since": None},
    )
    assert service.client.post("/generate?class=pro_b&n=5").status_code == 202
    assert service.client.get("/readyz").status_code == 200


def test_draining_twice_keeps_the_first_moment(service: Service) -> None:
    first = drain(service, True).json()
    service.clock.offset_s = 100.0

    assert drain(service, True).json() == first
    service.redis.set(keys.DRAINING, "by hand")
    assert service.client.get("/admin/drain").json()["draining"] is True


def test_every_process_of_the_fleet_drains(service: Service) -> None:
    with running(service.settings, Clock(), service.checkpoint) as other:
        drain(service, True)

        assert other.client.post("/generate?class=pro_b&n=5").json()["code"] == "draining"


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "draining"), ({"draining": 1}, "draining"), ({"draining": True, "x": 1}, "x"), ([], "body")],
)
def test_bad_input_is_named(service: Service, body: object, field: str) -> None:
    response = service.client.post("/admin/drain", json=body)

    assert (response.status_code, response.json()["errors"][0]["name"]) == (422, field)
    assert service.redis.get(keys.DRAINING) is None


def test_a_body_of_another_kind_is_refused(service: Service) -> None:
    plain = service.client.post("/admin/drain", content=b'{"draining": true}')
    large = service.client.post(
        "/admin/drain", content=b" " * 20_000, headers={"Content-Type": "application/json"}
    )
    broken = service.client.post(
        "/admin/drain", content=b'{"draining"', headers={"Content-Type": "application/json"}
    )

    assert [r.json()["code"] for r in (plain, large, broken)] == [
        "invalid_parameter",
        "body_too_large",
        "invalid_parameter",
    ]


def test_only_an_admin_drains(service: Service, tmp_path: Path) -> None:
    guarded = service.settings.model_copy(update={"api_keys_file": keys_file(tmp_path)})
    with running(guarded, Clock(), service.checkpoint) as other:
        answers = [
            other.client.post("/admin/drain", json={"draining": True}, headers=headers).status_code
            for headers in ({}, auth(LIMITED), auth(ADMIN))
        ]

    assert answers == [401, 403, 200]


@contextmanager
def process(settings: ServiceSettings, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """`python -m service` and its URL."""
    port = free_port()
    environment = {
        "MASAN_REDIS_URL": settings.redis_url,
        "MASAN_MODEL_STORE_URL": settings.model_store_url,
        "MASAN_RESULT_STORE_URL": settings.result_store_url,
        "MASAN_DEFAULT_MODEL": settings.default_model,
        "MASAN_PORT": str(port),
    }
    started = subprocess.Popen([sys.executable, "-m", "service"], env=environment | variables)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 20
    try:
        while True:
            try:
                httpx.get(f"{url}/livez", trust_env=False)
                break
            except httpx.ConnectError:
                assert started.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        yield started, url
    finally:
        started.kill()
        started.wait()


def wait_for_another_request(url: str) -> None:
    """Until one is under way beside ours."""
    wanted = "\nmasan_http_requests_in_progress 2.0\n"
    while wanted not in httpx.get(f"{url}/metrics", trust_env=False).text:
        time.sleep(0.02)


def test_sigterm_answers_what_is_under_way_then_ends_with_0(service: Service) -> None:
    job_id = service.submit()["id"]
    answers: list[httpx.Response] = []
    with process(service.settings, MASAN_SHUTDOWN_DELAY_S="1", MASAN_SHUTDOWN_GRACE_S="5") as (server, url):

        def wait_for_change() -> None:
            headers = {"Prefer": "wait=25"}
            answers.append(httpx.get(f"{url}/jobs/{job_id}", headers=headers, timeout=30, trust_env=False))

        with meanwhile(wait_for_change):
            wait_for_another_request(url)
            started = time.monotonic()
            server.send_signal(signal.SIGTERM)
            while (ready := httpx.get(f"{url}/readyz", trust_env=False)).is_success:
                time.sleep(0.02)
            code = server.wait(15)

    assert time.monotonic() - started < 6
    assert code == 0
    assert (ready.status_code, [error["name"] for error in ready.json()["errors"]]) == (503, ["process"])
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "queued")]


def test_an_answer_that_does_not_end_is_cut_at_the_grace(service: Service) -> None:
    """A client that reads nothing must not keep the process."""
    with process(service.settings, MASAN_SHUTDOWN_GRACE_S="1") as (server, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as stuck:
            stuck.sendall(b"POST /admin/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n")
            stuck.sendall(b"Content-Type: application/json\r\n\r\n{")
            wait_for_another_request(url)
            started = time.monotonic()
            server.send_signal(signal.SIGTERM)
            code = server.wait(10)

    assert (code, time.monotonic() - started < 4) == (0, True)
