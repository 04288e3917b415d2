"""How the server reads HTTP: by httptools, whose parser is C, and never more than it should.

uvicorn bounds what its slower parser keeps of a request whose head does not end, but not what httptools does.
"""

from typing import Final

import uvicorn.protocols.http.httptools_impl as httptools_server

from service.limits import MAX_HEADER_BYTES

MAX_HEAD_BYTES: Final = 2 * MAX_HEADER_BYTES
"""Of the request line and all header fields, trailers included; over it the server answers 400 unasked."""


class BoundedProtocol(httptools_server.HttpToolsProtocol):
    """One connection. A head that is too long is refused, as is a part of it that does not end.

    A part is told of when it ends; hence one of a few reads, some 100 kB each, may pass before it is noticed.
    """

    _head_bytes = 0
    _unreported_bytes = 0

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
