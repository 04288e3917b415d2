"""How large a request may be, and how many are answered at once; what is over is refused unread."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.auth import PUBLIC_PATHS
from service.errors import (
    BodyTooLargeError,
    FieldError,
    HeadersTooLargeError,
    InvalidParameterError,
    OverloadedError,
    RequestError,
    UriTooLongError,
)
from service.results.verification import MAX_FILE_BYTES

MAX_BODY_BYTES: Final = 1 << 20
"""Of any route that no upload goes to; the routes that read a body have smaller limits of their own."""
UPLOAD_BYTES: Final = {"/verify": MAX_FILE_BYTES}
MAX_HEADERS: Final = 100
MAX_HEADER_BYTES: Final = 32_768
"""Names and values together. Over twice as much, the server answers 400 before the application is asked."""
MAX_PATH_BYTES: Final = 2_048
MAX_QUERY_BYTES: Final = 8_192
MAX_PARAMETERS: Final = 64
OVERLOADED_RETRY_S: Final = 1

_CLOSE: Final = {"Connection": "close"}
"""What is still on its way in is not read: the connection ends with the answer."""


class LimitsMiddleware:
    """Raises RequestError for what is over a limit; the middleware around it makes an answer of that.

    max_concurrent: requests of this process under way at once; probes and metrics are always answered.
    """

    def __init__(self, app: ASGIApp, max_concurrent: int) -> None:
        self._app = app
        self._max_concurrent = max_concurrent
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        _check_uri(scope)
        _check_headers(scope)
        if scope["path"] not in PUBLIC_PATHS and self._under_way >= self._max_concurrent:
            raise OverloadedError(
                f"{self._under_way} requests are being answered, as many as one process takes.",
                retry_after_s=OVERLOADED_RETRY_S,
            )
        self._under_way += 1
        try:
            await _Body(scope, receive, send).run(self._app)
        finally:
            self._under_way -= 1


class _Body:
    """Counts a body as it comes in. What the application answers to one that was cut is not sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._limit = UPLOAD_BYTES.get(scope["path"], MAX_BODY_BYTES)
        self._received = 0
        self._refusal: RequestError | None = None
        self._is_answered = False

    async def run(self, app: ASGIApp) -> None:
        """Raises BodyTooLargeError; for a declared length before anything is read."""
        declared = dict(self._scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > self._limit:
            raise self._too_large()
        try:
            await app(self._scope, self._count, self._pass)
        except Exception:
            if self._refusal is None:
                raise
        if self._refusal is not None and not self._is_answered:
            raise self._refusal

    async def _count(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            self._refusal = self._too_large()
            raise self._refusal
        return message

    async def _pass(self, message: Message) -> None:
        if self._refusal is not None and not self._is_answered:
            return
        self._is_answered = True
        await self._send(message)

    def _too_large(self) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"The body has more than {self._limit} bytes, the most that {self._scope['path'][:100]} takes.",
            headers=_CLOSE,
        )


def _check_uri(scope: Scope) -> None:
    path, query = scope.get("raw_path") or scope["path"].encode(), scope["query_string"]
    for what, length, limit in (("path", len(path), MAX_PATH_BYTES), ("query", len(query), MAX_QUERY_BYTES)):
        if length > limit:
            raise UriTooLongError(f"The {what} has {length} bytes; {limit} are allowed.", headers=_CLOSE)
    count = query.count(b"&") + 1
    if count > MAX_PARAMETERS:
        field = FieldError("query", f"has {count} parameters", f"at most {MAX_PARAMETERS}")
        raise InvalidParameterError(f"query: {field.reason}; {field.allowed} are allowed.", errors=[field])


def _check_headers(scope: Scope) -> None:
    headers = scope["headers"]
    length = sum(len(name) + len(value) for name, value in headers)
    for what, found, limit in (
        ("fields", len(headers), MAX_HEADERS),
        ("bytes", length, MAX_HEADER_BYTES),
    ):
        if found > limit:
            raise HeadersTooLargeError(
                f"The headers have {found} {what}; {limit} are allowed.", headers=_CLOSE
            )
