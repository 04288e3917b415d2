"""Around every request: its id, one log line, its metrics, and an answer to what nobody caught."""

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.auth import check_origin
from service.access.rate_limits import Standing, standing_var
from service.errors import InternalError, RequestError
from service.http.problems import problem_response
from service.ids import ulid
from service.logs import request_id_var
from service.metrics.process import HttpMetrics

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._-]{1,64}$")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMiddleware:
    """Outermost of ours. Takes the client's X-Request-Id if it is a plain one, and echoes it."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _REQUEST_ID.match(given) else ulid(time.time())
        token = request_id_var.set(request_id)
        standing = Standing()
        standing_token = standing_var.set(standing)
        self._metrics.under_way += 1
        try:
            await self._answer(scope, receive, send, request_id, standing)
        finally:
            self._metrics.under_way -= 1
            standing_var.reset(standing_token)
            request_id_var.reset(token)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, standing: Standing
    ) -> None:
        status: int | None = None
        started = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                extra += standing.headers()
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        try:
            check_origin(scope)
            await self._app(scope, receive, send_with_id)
        except RequestError as error:
            self._metrics.count_rejection(error)
            await problem_response(error, scope["path"])(scope, receive, send_with_id)
        except Exception:
            logger.exception("unhandled error", extra={"path": scope["path"]})
            if status is not None:
                raise  # half an answer is out; only cutting it short tells the client
            mistake = InternalError("An unexpected error happened; its request_id finds it in the log.")
            await problem_response(mistake, scope["path"])(scope, receive, send_with_id)
        finally:
            self._record(scope, status or 499, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.count_answer(route, method, status, seconds)
        extra = {"method": method, "path": scope["path"], "status": status, "seconds": round(seconds, 4)}
        if job_id := scope.get("path_params", {}).get("job_id"):
            extra["job_id"] = job_id
        logger.info("request", extra=extra)
