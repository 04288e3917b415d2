"""What a process sends to Redis, byte by byte; sending it again for other jobs, as fast as Valkey can."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing.synchronize import Barrier
from typing import Any
from urllib.parse import urlsplit

from redis.connection import Connection

JOB_MARK = b"RECORDED"
"""In every recorded job's id; a replay puts in its place what makes the id new."""
QUEUE_KEY = b"rq:queue:chunks"
_REQUEST = re.compile(rb"\*(\d+)\r\n")
_SHORT_REPLIES = b"+:_#,"
_END_REQUEST = b"*2\r\n$4\r\nECHO\r\n$8\r\n<<LAST>>\r\n"
_END_REPLY = b"$8\r\n<<LAST>>\r\n"
_OPENING = re.compile(rb"\*\d+\r\n\$\d+\r\n(?:HELLO|AUTH|CLIENT|SELECT)\r\n")
"""The first words of a connection, of which a replay has its own."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What was sent before an answer was waited for: one command, or a pipeline of them."""

    data: bytes
    commands: int


@contextmanager
def recorded() -> Iterator[list[Burst]]:
    """Everything that redis-py sends inside the block, from all threads of this process, in order."""
    bursts: list[Burst] = []
    send: Callable[..., None] = Connection.send_packed_command

    def send_recorded(self: Connection, command: Any, check_health: bool = True) -> None:
        parts = [command] if isinstance(command, (bytes, str)) else list(command)
        data = b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in parts)
        if not _OPENING.match(data):
            bursts.append(Burst(data, count_commands(data)))
        send(self, parts, check_health)

    Connection.send_packed_command = send_recorded  # type: ignore[assignment, method-assign]
    try:
        yield bursts
    finally:
        Connection.send_packed_command = send  # type: ignore[method-assign]


def count_commands(data: bytes) -> int:
    """Requests in packed bytes."""
    at = count = 0
    while match := _REQUEST.match(data, at):
        at = match.end()
        for _ in range(int(match[1])):
            header_end = data.index(b"\r\n", at)
            at = header_end + 2 + int(data[at + 1 : header_end]) + 2
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class Replay:
    """What each of several processes does at the same time; see `replay`."""

    url: str
    bursts: list[tuple[bytes, int]]
    connections: int
    seconds: float
    is_pipelined: bool


def replay(plan: Replay, process: int, ready: Barrier, answers: Any) -> None:
    """Send the recorded bursts again and again, on several connections.

    Each burst once its predecessor on that connection is answered, as the recorded processes did; or,
    pipelined, all of them at once, which costs Valkey less and this process nearly nothing. Every connection
    has a queue of its own, so that it takes the jobs that it put there; each round is of new jobs. Puts into
    `answers` how often all was sent, and the number of refused commands.
    """
    lines = [_Line(plan, process * plan.connections + number) for number in range(plan.connections)]
    ready.wait()
    deadline = time.monotonic() + plan.seconds
    rounds = refused = 0
    while time.monotonic() < deadline:
        for line in lines:
            line.begin_round(rounds)
        if plan.is_pipelined and rounds:
            for line in lines:
                line.send_all()
            for line in lines:
                line.read_to_mark()
        else:
            for number, (_, commands) in enumerate(plan.bursts):
                for line in lines:
                    line.send(number)
                for line in lines:
                    refused += line.receive(commands)
        rounds += 1
    for line in lines:
        line.close()
    answers.put((rounds * plan.connections, refused))


class _Line:
    """One connection. A replaced mark is as long as the mark, so that bursts keep their places."""

    def __init__(self, plan: Replay, number: int) -> None:
        self._number = number
        self._recorded = b"".join(data for data, _ in plan.bursts)
        self._ends = list(accumulate((len(data) for data, _ in plan.bursts), initial=0))
        self._data = memoryview(self._recorded)
        parts = urlsplit(plan.url)
        self._socket = socket.create_connection((parts.hostname, parts.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if parts.password:
            password = parts.password.encode()
            self._socket.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%b\r\n" % (len(password), password))
            if self.receive(1):
                raise RuntimeError("Valkey refused the password")

    def begin_round(self, number: int) -> None:
        mark, queue = b"%03d%05X" % (self._number, number), b"rq:queue:c%05d" % self._number
        self._data = memoryview(self._recorded.replace(JOB_MARK, mark).replace(QUEUE_KEY, queue))

    def send(self, burst: int) -> None:
        self._socket.sendall(self._data[self._ends[burst] : self._ends[burst + 1]])

    def send_all(self) -> None:
        self._socket.sendall(self._data)
        self._socket.sendall(_END_REQUEST)

    def read_to_mark(self) -> None:
        tail = b""
        while not tail.endswith(_END_REPLY):
            tail = tail[-len(_END_REPLY) :] + self._received()

    def receive(self, commands: int) -> int:
        """Read that many answers. Returns how many of them, or of what is in them, are errors."""
        data = self._received()
        while (errors := errors_in(data, commands)) is None:
            data += self._received()
        return errors

    def close(self) -> None:
        self._socket.close()

    def _received(self) -> bytes:
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionError("Valkey closed the connection")
        return data


def errors_in(data: bytes, replies: int) -> int | None:
    """Errors among that many whole replies, None while some are missing."""
    if replies == 1 and data[:1] in (b"+", b":") and data.endswith(b"\r\n"):
        return 0
    at = errors = 0
    pending = replies
    while pending:
        end = data.find(b"\r\n", at)
        if end < 0:
            return None
        kind = data[at : at + 1]
        pending -= 1
        if kind == b"-":
            errors += 1
        elif kind == b"$":
            length = int(data[at + 1 : end])
            end = end + length + 2 if length >= 0 else end
        elif kind in b"*~%":
            pending += max(0, int(data[at + 1 : end])) * (2 if kind == b"%" else 1)
        elif kind not in _SHORT_REPLIES:
            raise ValueError(f"not a reply: {data[at:end]!r}")
        at = end + 2
    return errors if at <= len(data) else None
