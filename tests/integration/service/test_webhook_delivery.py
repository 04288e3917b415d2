"""Delivering webhooks over real HTTP: told once, signed, repeated after failures, never to inside."""

import base64
import hashlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from masan import webhook_worker
from masan.webhook_sender import PAUSES_S, WebhookSender, signed_headers
from masan.webhook_settings import WebhookSettings
from masan.webhook_worker import WebhookProcess, WebhookWorker
from tests.integration.service.harness import Service
from tests.integration.service.webhook_receiver import (
    LOOPBACK,
    Receiver,
    ask,
    deliver,
    outcomes,
    process,
    receiving,
    record,
)
from worker.contract import keys
from worker.contract.messages import JobStatus
from worker.contract.webhook_ledger import LEASE_S, Delivery, Webhook, WebhookLedger
from worker.contract.webhook_queue import MAX_WAITING, enqueue_due, open_webhook_queue

pytestmark = pytest.mark.integration

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Written out as in RFC 2104, apart from the library that signs."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).digest()


def test_a_finished_job_is_told_with_a_signature_that_verifies(service: Service, receiver: Receiver) -> None:
    job_id = ask(service, {"url": receiver.url, "secret": SECRET})
    deliver(service)
    assert receiver.requests == []

    service.finish(job_id)
    deliver(service)

    ((path, headers, body),) = receiver.requests
    assert path == "/hook?token=of-the-lab"
    assert json.loads(body) == service.client.get(f"/jobs/{job_id}").json()
    assert json.loads(body)["status"] == "succeeded"
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 30
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(hmac_sha256(KEY, signed)).decode()}"
    assert outcomes(service) == {"delivered": 1, "retried": 0, "given_up": 0, "refused": 0}
    deliver(service)
    assert len(receiver.requests) == 1


def test_signature_is_that_of_the_specification_s_example() -> None:
    webhook = Webhook("https://x", ("succeeded",), "whsec_plJ3nmyCDGBKInavdOK15jsl")
    delivery = Delivery("loFOjxBNrRLzqYUf", 1, 1, webhook, None)

    headers = signed_headers(
        delivery, '{"event_type":"ping","data":{"success":true}}', timestamp=1_731_705_121
    )

    assert headers["webhook-id"] == "msg_loFOjxBNrRLzqYUf"
    assert headers["webhook-signature"] == "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0="


def test_without_a_secret_there_is_no_signature(service: Service, receiver: Receiver) -> None:
    service.finish(ask(service, {"url": receiver.url}))
    deliver(service)

    ((_, headers, _),) = receiver.requests
    assert "webhook-id" in headers
    assert "webhook-signature" not in headers


def test_failures_are_repeated_in_time_with_the_same_id_and_body(
    service: Service, receiver: Receiver
) -> None:
    receiver.answers = [500, 302, 200]
    job_id = ask(service, {"url": receiver.url, "secret": SECRET})
    service.finish(job_id)

    for attempts, pause_s in enumerate(PAUSES_S[:2], start=1):
        deliver(service)
        assert len(receiver.requests) == attempts
        service.clock.offset_s += pause_s - 1.5
        deliver(service)
        assert len(receiver.requests) == attempts, "too early"
        service.clock.offset_s += 2
    deliver(service)

    assert [path for path, _, _ in receiver.requests] == ["/hook?token=of-the-lab"] * 3
    assert len(set(receiver.ids)) == len({body for _, _, body in receiver.requests}) == 1
    stamps = [int(headers["webhook-timestamp"]) for _, headers, _ in receiver.requests]
    assert stamps[0] < stamps[1] < stamps[2]
    assert outcomes(service) == {"delivered": 1, "retried": 2, "given_up": 0, "refused": 0}
    assert record(service, job_id)["state"] == "delivered"


def test_a_receiver_that_never_answers_is_given_up(service: Service, receiver: Receiver) -> None:
    receiver.answers = [503] * 20
    job_id = ask(service, {"url": receiver.url, "secret": SECRET})
    service.finish(job_id)

    for pause_s in (*PAUSES_S, 0.0, 100_000.0):
        deliver(service)
        service.clock.offset_s += pause_s + 1

    assert len(receiver.requests) == len(PAUSES_S) + 1
    assert outcomes(service) == {"delivered": 0, "retried": 5, "given_up": 1, "refused": 0}
    kept = record(service, job_id)
    assert (kept["state"], kept["reason"], kept["attempts"]) == ("given_up", "answered 503", "6")
    assert "secret" not in kept
    assert service.redis.ttl(keys.webhook_key(job_id)) > 0
    assert service.redis.zcard(keys.WEBHOOKS_DUE) == 0


def test_a_drip_of_bytes_does_not_hold_the_process(service: Service, receiver: Receiver) -> None:
    receiver.answers = [0]
    job_id = ask(service, {"url": receiver.url})
    service.finish(job_id)
    started = time.monotonic()

    deliver(service, timeout_s=0.5)

    assert time.monotonic() - started < 5
    assert record(service, job_id)["reason"].startswith("no answer")


def test_racing_ends_make_exactly_one_delivery(service: Service, receiver: Receiver) -> None:
    job_ids = [ask(service, {"url": receiver.url}, n=1) for _ in range(6)]
    ends = (JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED)

    def end(job_id: str, to: JobStatus | None) -> None:
        if to is None:
            service.finish(job_id)
        else:
            running = (JobStatus.QUEUED, JobStatus.RUNNING)
            service.ledger.transition(job_id, to, allowed_from=running, now=service.clock())

    with ThreadPoolExecutor(8) as pool:
        races = [pool.submit(end, job_id, to) for job_id in job_ids for to in (*ends, None, *ends)]
        for race in races:
            race.result()
    for _ in range(2):
        deliver(service)

    told = {json.loads(body)["id"]: json.loads(body)["status"] for _, _, body in receiver.requests}
    assert sorted(receiver.ids) == sorted(f"msg_{job_id}" for job_id in job_ids)
    assert told == {job_id: service.ledger.status(job_id) for job_id in job_ids}


def test_only_the_ends_asked_for_are_told(service: Service, receiver: Receiver) -> None:
    failed_only = ask(service, {"url": receiver.url, "events": ["failed", "expired"], "secret": SECRET})
    service.finish(failed_only)
    canceled = ask(service, {"url": receiver.url, "events": ["canceled"]})
    assert service.client.post(f"/jobs/{canceled}/cancel").status_code == 200

    deliver(service)

    assert receiver.ids == [f"msg_{canceled}"]
    assert record(service, failed_only) == {}


def test_a_retried_job_tells_of_its_new_end_under_a_new_id(service: Service, receiver: Receiver) -> None:
    job_id = ask(service, {"url": receiver.url, "secret": SECRET})
    service.client.post(f"/jobs/{job_id}/cancel")
    deliver(service)

    assert service.client.post(f"/jobs/{job_id}/retry").status_code == 202
    service.finish(job_id)
    deliver(service)

    assert receiver.ids == [f"msg_{job_id}", f"msg_{job_id}_1"]
    assert [json.loads(body)["status"] for _, _, body in receiver.requests] == ["canceled", "succeeded"]
    assert all("webhook-signature" in headers for _, headers, _ in receiver.requests)
    assert "secret" not in record(service, job_id)


def test_a_retried_job_tells_of_its_success_alone_if_asked_so(service: Service, receiver: Receiver) -> None:
    job_id = ask(service, {"url": receiver.url, "events": ["succeeded"]})
    service.client.post(f"/jobs/{job_id}/cancel")
    deliver(service)
    assert receiver.requests == []

    service.client.post(f"/jobs/{job_id}/retry")
    service.finish(job_id)
    deliver(service)

    assert receiver.ids == [f"msg_{job_id}_1"]


def test_a_killed_process_s_attempt_is_made_again_under_the_same_id(
    service: Service, receiver: Receiver
) -> None:
    receiver.answers = [0]
    job_id = ask(service, {"url": receiver.url, "secret": SECRET})
    service.finish(job_id)
    with process(service, "masan.cli", "work", "--queue", "webhooks") as worker:
        receiver.wait(1)
        worker.kill()
        worker.wait(5)
    deliver(service)
    assert len(receiver.requests) == 1, "its lease still holds"

    service.clock.offset_s += LEASE_S + 1
    deliver(service)
    deliver(service)

    assert receiver.ids == [f"msg_{job_id}"] * 2
    kept = record(service, job_id)
    assert (kept["state"], kept["attempts"]) == ("delivered", "2")


def test_a_void_claim_settles_nothing(service: Service, receiver: Receiver) -> None:
    job_id = ask(service, {"url": receiver.url})
    service.finish(job_id)
    ledger = WebhookLedger(service.redis)
    ((_, old),) = ledger.claim(now=service.clock() + 1, limit=9)
    ((_, new),) = ledger.claim(now=service.clock() + LEASE_S + 2, limit=9)

    sender = WebhookSender(service.redis, LOOPBACK, clock=service.clock)

    assert sender.deliver(job_id, old) is None
    assert receiver.requests == []
    assert sender.deliver(job_id, new) == "delivered"
    assert sender.deliver(job_id, new) is None


def test_a_thread_that_is_told_to_stop_while_it_starts_stops(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivering = WebhookProcess(WebhookSettings(redis_url=service.settings.redis_url))
    starting = threading.Event()

    def slow_to_start(*arguments: Any) -> WebhookWorker:
        starting.set()
        assert delivering._stopping.wait(10)
        time.sleep(0.1)  # until it is told, and nobody there to hear it
        return WebhookWorker(*arguments)

    monkeypatch.setattr(webhook_worker, "WebhookWorker", slow_to_start)
    with delivering.beside():
        assert starting.wait(10)

    assert "webhooks" not in {thread.name for thread in threading.enumerate()}


def test_the_queue_is_filled_no_further_than_its_leases_last(service: Service, receiver: Receiver) -> None:
    for _ in range(MAX_WAITING + 2):
        service.finish(ask(service, {"url": receiver.url}, n=1))
    with Redis.from_url(service.settings.redis_url) as redis:
        queue, ledger = open_webhook_queue(redis), WebhookLedger(service.redis)

        assert enqueue_due(queue, ledger, now=service.clock() + 1) == MAX_WAITING
        assert enqueue_due(queue, ledger, now=service.clock() + 1) == 0
        payload = redis.hget(f"rq:job:{queue.get_job_ids()[0]}", "data")

    assert isinstance(payload, bytes)
    assert b"masan.webhook_sender.deliver_webhook" in _plain(payload)
    assert b"token" not in _plain(payload)


def _plain(payload: bytes) -> bytes:
    import zlib

    text = zlib.decompress(payload) if payload[:1] == b"x" else payload
    json.loads(text)
    return text


def test_the_command_of_both_queues_delivers_and_logs_no_secret(service: Service, receiver: Receiver) -> None:
    receiver.answers = [500]
    job_id = ask(service, {"url": receiver.url, "secret": SECRET})
    service.finish(job_id)

    with process(service, "masan.cli", "work", "--queue", "reports,webhooks") as both:
        receiver.wait(1)
        deadline = time.monotonic() + 10
        while "reason" not in record(service, job_id) or not service.redis.hlen(keys.REPORT_WORKERS):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        both.send_signal(signal.SIGTERM)
        assert both.wait(10) == 0
        log = both.stdout.read().decode() if both.stdout else ""

    assert '"outcome": "retried"' in log
    assert job_id in log
    for private in (SECRET, SECRET.removeprefix("whsec_"), "of-the-lab"):
        assert private not in log


def pretend(monkeypatch: pytest.MonkeyPatch, host: str, addresses: list[str]) -> list[str]:
    """Let a name resolve to the next address each time, the last for ever. Returns what was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(name: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        if name != host:
            return real(name, port, *arguments, **named)
        asked.append(name)
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


def test_a_name_that_turns_inside_after_it_was_accepted_is_refused(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "hooks.test", ["93.184.215.14", "127.0.0.1"])
    job_id = ask(service, {"url": f"https://hooks.test:{receiver.port}/", "secret": SECRET})
    service.finish(job_id)

    deliver(service, networks=())

    assert receiver.requests == []
    kept = record(service, job_id)
    assert (kept["state"], kept["reason"]) == ("refused", "'hooks.test' is not a public address")
    assert outcomes(service)["refused"] == 1


def test_the_connection_goes_to_the_address_that_was_checked_and_asks_for_the_name(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=hooks.test", "-addext", "subjectAltName=DNS:hooks.test"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with receiving(context) as receiver:
        asked = pretend(monkeypatch, "hooks.test", ["127.0.0.1"])
        job_id = ask(service, {"url": f"https://hooks.test:{receiver.port}/in"})
        service.finish(job_id)
        asked.clear()
        deliver(service)
        assert record(service, job_id)["reason"] == "no answer: SSLCertVerificationError"

        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        service.clock.offset_s += PAUSES_S[0] + 1
        deliver(service)

    assert record(service, job_id)["state"] == "delivered"
    assert asked == ["hooks.test"] * 2, "once for each attempt"
    ((path, headers, _),) = receiver.requests
    assert (path, headers["host"]) == ("/in", f"hooks.test:{receiver.port}")


def test_the_sender_needs_neither_torch_nor_the_service_s_framework() -> None:
    others = {"torch", "fastapi", "orjson", "numpy", "cv2"}
    code = f"import sys, masan.webhook_worker; print({others!r} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
