"""Services that are killed while somebody listens to them, and the one that goes on in their place."""

import socket
import time
from collections.abc import Iterator
from typing import cast

import httpx
import pytest

from service.reaper import LOCK, LOCK_S
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
from worker.contract import keys

Event = tuple[str, str, str]
"""Id, name and data."""


def slow_client(service: ServiceProcess) -> httpx.Client:
    """One whose kernel takes little ahead of it, so that most of a download is not sent before it is read."""
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)]
    transport = httpx.HTTPTransport(socket_options=small)
    return httpx.Client(base_url=f"http://127.0.0.1:{service.port}", timeout=30, transport=transport)


def test_service_killed_in_the_middle_of_a_download(
    stack: Stack, service: ServiceProcess, undisturbed: Undisturbed, record: Record
) -> None:
    path = f"/jobs/{undisturbed.job_id}/result"
    begun = bytearray()
    with slow_client(service) as http, http.stream("GET", path) as response:
        etag = response.headers["ETag"]
        blocks = response.iter_bytes(65_536)
        begun += next(blocks)
        service.kill()
        killed_at = time.monotonic()
        with pytest.raises(httpx.TransportError):
            for block in blocks:
                begun += block
    restarted = stack.start_service(port=service.port)
    resume = {"Range": f"bytes={len(begun)}-", "If-Range": etag}
    rest = restarted.http.get(path, headers=resume)
    seconds = time.monotonic() - killed_at

    record("SIGKILL of the service in a download, started again: until the download was whole", seconds)
    assert 0 < len(begun) < len(undisturbed.archive)
    assert rest.status_code == httpx.codes.PARTIAL_CONTENT
    assert rest.headers["ETag"] == etag
    assert bytes(begun) + rest.content == undisturbed.archive


def events_of(response: httpx.Response) -> Iterator[Event]:
    """Whole events as they come."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if not line and "id" in fields:
            yield fields["id"], fields["event"], fields["data"]
            fields = {}
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value


def test_service_killed_in_the_middle_of_an_event_stream(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    job_id = submit(service.http, IMAGES)
    path = f"/jobs/{job_id}/events"
    seen: list[Event] = []
    with service.http.stream("GET", path) as response, pytest.raises(httpx.TransportError):
        for event in events_of(response):
            seen.append(event)
            if sum(name == "shard" for _, name, _ in seen) == 2 and service.is_running:
                service.kill()
                killed_at = time.monotonic()
    before = len(seen)
    restarted = stack.start_service(port=service.port)
    with restarted.http.stream("GET", path, headers={"Last-Event-ID": seen[-1][0]}) as response:
        for event in events_of(response):
            if len(seen) == before:
                seconds = time.monotonic() - killed_at
            seen.append(event)

    record("SIGKILL of the service in an event stream, started again: until the next event", seconds)
    kept = cast("list[tuple[str, dict[str, str]]]", stack.redis.xrange(keys.events_key(job_id)))
    assert [event_id for event_id, _, _ in seen] == [event_id for event_id, _ in kept]
    assert [name for _, name, _ in seen].count("done") == 1
    assert seen[-1][1] == "done"
    assert digests(download(restarted.http, job_id)) == undisturbed.digests


def test_service_killed_while_it_keeps_the_others_from_their_rounds(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    """The holder of the reaper's lock dies in its round; the other service finds what was lost."""
    other = stack.start_service()
    job_id = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, job_id))
    service.kill()
    killed_at = time.monotonic()
    stack.redis.set(LOCK, "of the process that was killed", px=int(1000 * LOCK_S))
    lost = stack.lose_waiting_chunks()
    eventually(lambda: all(stack.is_done(*chunk) for chunk in lost))
    seconds = time.monotonic() - killed_at

    wait_until_succeeded(other.http, job_id)

    record("SIGKILL of the service that held the reaper's lock: until another had found lost chunks", seconds)
    assert seconds < LOCK_S + 15
    assert digests(download(other.http, job_id)) == undisturbed.digests


def test_chunks_that_vanish_from_the_queue(
    stack: Stack, service: ServiceProcess, one_worker: Process, undisturbed: Undisturbed, record: Record
) -> None:
    """As by a worker that is killed between taking a chunk and saying so."""
    job_id = submit(service.http, IMAGES)
    eventually(lambda: done(service.http, job_id))
    lost = stack.lose_waiting_chunks()
    lost_at = time.monotonic()
    eventually(lambda: all(stack.is_done(*chunk) for chunk in lost))
    seconds = time.monotonic() - lost_at

    wait_until_succeeded(service.http, job_id)

    record("Chunks vanished from the queue: until they were found and made", seconds)
    assert seconds < 15
    assert digests(download(service.http, job_id)) == undisturbed.digests
