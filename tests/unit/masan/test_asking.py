"""What is asked again, how often and how long, against a scripted server."""

import time

import pytest

from masan.asking import Patience, Session
from masan.client import Client
from masan.errors import (
    ApiError,
    RateLimitedError,
    ServerUnreachableError,
    UnavailableError,
    UnexpectedAnswerError,
)
from masan.processes import free_port
from tests.unit.masan.test_client import JOB, ScriptedServer, answer, hang_up, job


def refusal(status: int, retry_after: str | None = None, code: str = "no_worker"):  # type: ignore[no-untyped-def]
    def send(handler) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(status)
        if retry_after is not None:
            handler.send_header("Retry-After", retry_after)
        content = b'{"title": "not now", "code": "%s"}' % code.encode()
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return send


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    told: list[str] = []
    with (
        ScriptedServer(refusal(status), job("queued", 0)) as server,
        Client(server.url, on_retry=lambda reason, _: told.append(reason)) as client,
    ):
        assert client.job("job_1").id == "job_1"

    assert told == ["not now"]
    assert len(server.asked) == 2


def test_the_pause_is_what_the_server_asks_for() -> None:
    waits: list[float] = []
    with (
        ScriptedServer(refusal(503, "0"), refusal(429, "1"), answer(202, JOB)) as server,
        Client(server.url, on_retry=lambda _, seconds: waits.append(seconds)) as client,
    ):
        began = time.monotonic()
        client.submit("pro_b", 1)

    assert waits == [0.0, 1.0]
    assert time.monotonic() - began >= 1
    keys = {headers["Idempotency-Key"] for _, _, headers in server.asked}
    assert len(keys) == 1


def test_a_pause_beyond_the_limit_is_not_waited_for() -> None:
    with (
        ScriptedServer(refusal(429, "40000", "quota_exceeded")) as server,
        Client(server.url) as client,
        pytest.raises(RateLimitedError) as caught,
    ):
        client.submit("pro_b", 1)

    assert (caught.value.retry_after_s, caught.value.code) == (40000, "quota_exceeded")
    assert len(server.asked) == 1


def test_repeating_can_be_switched_off() -> None:
    with (
        ScriptedServer(refusal(503)) as server,
        Client(server.url, retry_for_s=0) as client,
        pytest.raises(UnavailableError),
    ):
        client.job("job_1")

    assert len(server.asked) == 1


def test_what_may_not_happen_twice_is_not_asked_twice() -> None:
    with (
        ScriptedServer(hang_up) as server,
        Client(server.url) as client,
        pytest.raises(ServerUnreachableError),
    ):
        client.rollback("b-all")

    assert len(server.asked) == 1


def test_a_server_that_never_answered_is_given_up_soon() -> None:
    began = time.monotonic()

    with Client(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(ServerUnreachableError):
        client.job("job_1")

    assert time.monotonic() - began < 4


def test_something_else_than_a_service_is_called_that() -> None:
    with (
        ScriptedServer(answer(200, {"hello": "there"})) as server,
        Client(server.url) as client,
        pytest.raises(UnexpectedAnswerError, match="does not look like a MASAN service"),
    ):
        client.job("job_1")


@pytest.mark.parametrize("job_id", ["", "a/b", "../x", "job 1", "jöb"])
def test_what_can_be_no_id_is_not_asked_for(job_id: str) -> None:
    with ScriptedServer(answer(200, {})) as server, Client(server.url) as client:
        with pytest.raises(ValueError, match="not the id of a job"):
            client.job(job_id)

        assert server.asked == []


def test_pauses_grow_and_stay_below_five_seconds() -> None:
    waits: list[float] = []
    session = Session("http://x", retry_for_s=1e9, on_retry=lambda _, seconds: waits.append(seconds))
    patience, error = Patience(session), ApiError(503, {"title": "not now"})

    for _ in range(10):
        patience.pause(error)

    assert 0.1 < waits[0] <= 0.2 < waits[3] < waits[4]
    assert max(waits) <= 5
