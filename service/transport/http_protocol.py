"""How the server reads HTTP: by httptools, whose parser is C, and never more than it should.

uvicorn bounds what its slower parser keeps of a request whose head does not end, but not what httptools does.
And it writes an answer's head and body one after the other, each of which the event loop sends at once.
"""

import asyncio
from typing import Any, Final

import uvicorn.protocols.http.httptools_impl as httptools_server

from service.transport.limits import MAX_HEADER_BYTES

MAX_HEAD_BYTES: Final = 2 * MAX_HEADER_BYTES
"""Of the request line and all header fields, trailers included; over it the server answers 400 unasked."""


_BEGIN: Final = b"HTTP/1."
"""Of an answer's head."""


class BoundedProtocol(httptools_server.HttpToolsProtocol):
    """One connection. A head that is too long is refused, as is a part of it that does not end.

    A part is told of when it ends; hence one of a few reads, some 100 kB each, may pass before it is noticed.
    """

    _head_bytes = 0
    _unreported_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_JoiningTransport(transport, self.loop))

    def data_received(self, data: bytes) -> None:
        self._unreported_bytes += len(data)
        super().data_received(data)
        if self._unreported_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        self._head_bytes = self._unreported_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._add(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._add(len(name) + len(value))
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unreported_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unreported_bytes = 0
        super().on_message_complete()

    def _add(self, size_bytes: int) -> None:
        """Raises ValueError, for which the connection is ended with 400."""
        self._unreported_bytes = 0
        self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"a head of more than {MAX_HEAD_BYTES} bytes")


class _JoiningTransport(asyncio.Transport):
    """Holds the head of an answer until its body comes, no longer than the event loop's turn lasts."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data[: len(_BEGIN)] == _BEGIN:
            self._head = bytes(data)
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)
