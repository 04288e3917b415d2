"""HEAD wherever GET answers: the same status and headers, no body. Source: RFC 9110, section 9.3.2."""

import asyncio
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_IS_HEAD: Final = "masan.is_head"
_FOUND: Final = ("route", "endpoint", "path_params")
"""What routing finds out, and the middleware around this one wants to know."""


def is_head(request: Request) -> bool:
    """Whether nobody will read the body of the answer; `request.method` says GET then."""
    return _IS_HEAD in request.scope


class HeadMiddleware:
    """Asks the application as GET does, and lets go of it once it has told its headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        asked: Scope = {**scope, "method": "GET", _IS_HEAD: True}
        try:
            await self._ask(asked, receive, send)
        finally:
            scope.update({name: asked[name] for name in _FOUND if name in asked})

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = asyncio.Event()

        async def send_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                answered.set()

        telling = asyncio.create_task(answered.wait())
        asking = asyncio.ensure_future(self._app(scope, receive, send_headers))
        try:
            await asyncio.wait({telling, asking}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            asking.cancel()  # an event stream would go on for as long as its job runs
        with suppress(asyncio.CancelledError):
            await asking
