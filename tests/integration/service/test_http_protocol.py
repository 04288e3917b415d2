"""The server itself ends what never comes to an end, and reads what is merely slow."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.transport.http_protocol import MAX_HEAD_BYTES, BoundedProtocol

pytestmark = pytest.mark.integration

BLOCK = b"a" * 4096
head_is_read = threading.Event()
"""`/slow` sends no body before."""


async def app(scope, receive, send):  # type: ignore[no-untyped-def]
    while (await receive()).get("more_body"):
        pass
    if scope["path"] == "/slow":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not head_is_read.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"body"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    config = uvicorn.Config(app, port=0, http=BoundedProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


def talk(port: int, *blocks: bytes) -> bytes:
    """The first line of the answer to what is sent, as far as it is taken."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            for block in blocks:
                connection.sendall(block)
        except OSError:
            pass  # it has been told already
        return connection.recv(200).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ",
        b"GET /",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ",
    ],
    ids=["header", "path", "trailer"],
)
def test_what_does_not_end_is_refused(port: int, head: bytes) -> None:
    assert talk(port, head, *[BLOCK] * (16 * MAX_HEAD_BYTES // len(BLOCK))).startswith(b"HTTP/1.1 400")


def test_too_many_fields_are_refused(port: int) -> None:
    fields = [b"X-%d: %s\r\n" % (i, b"a" * 1000) for i in range(MAX_HEAD_BYTES // 1000 + 10)]

    assert talk(port, b"GET / HTTP/1.1\r\nHost: a\r\n", *fields, b"\r\n").startswith(b"HTTP/1.1 400")


def test_a_long_body_is_not_its_matter(port: int) -> None:
    size = 4 * MAX_HEAD_BYTES
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size

    assert talk(port, head, *[BLOCK] * (size // len(BLOCK))).startswith(b"HTTP/1.1 200")


def test_a_head_that_comes_byte_by_byte_is_read(port: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: bbbb\r\n\r\n"

    assert talk(port, *(bytes([byte]) for byte in head)).startswith(b"HTTP/1.1 200")


def test_a_head_is_out_before_its_body_is_there(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")

        try:
            first = connection.recv(4096)
        finally:
            head_is_read.set()

    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\n")


class _Watched(socket.socket):
    """A socket that knows what it was given at a time."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.sent: list[bytes] = []

    def send(self, data: Any, flags: int = 0, /) -> int:
        self.sent.append(bytes(data))
        return super().send(data, flags)

    def sendmsg(self, buffers: Iterable[Any], *others: Any) -> int:
        self.sent.append(b"".join(map(bytes, buffers)))
        return super().sendmsg(buffers, *others)


def test_head_and_body_are_sent_together() -> None:
    ours, client = socket.socketpair()

    async def answer() -> list[bytes]:
        watched = _Watched(ours.detach())
        config = uvicorn.Config(app, http=BoundedProtocol, log_config=None, lifespan="off")
        config.load()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(
            lambda: BoundedProtocol(config=config, server_state=ServerState(), app_state={}), watched
        )
        client.setblocking(False)
        await loop.sock_sendall(client, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        while await loop.sock_recv(client, 4096):
            pass
        return watched.sent

    with client:
        (sent,) = asyncio.run(answer())

    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\n\r\nok")
