"""Requests for direct routes go to them at once: past FastAPI's routing, exit stacks and wrapped senders.

Those find anew for each request what is known when the application is built, and take as long as the work of
a short request. A route is taken if its handler is a DirectRoute's and no other route could have been meant;
everything else, and everything while spans are made, FastAPI answers as ever.
"""

import re
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.routing import RouteContext, iter_route_contexts
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from service.transport.direct_route import DirectRoute, Handler

_PARAMETER: Final = re.compile(r"{[^}]*}")


class DirectRequest(Request):
    """Whose query is split by the shortest way."""

    @property
    def query_params(self) -> QueryParams:
        """As Request's."""
        if not hasattr(self, "_query_params"):
            self._query_params = QueryParams(split_query(self.scope["query_string"]))
        return self._query_params


@dataclass(frozen=True, slots=True)
class _DirectPath:
    """pattern: None of a path without parameters, which are text all of them."""

    route: DirectRoute
    handler: Handler
    pattern: re.Pattern[str] | None


class DirectPaths:
    """Innermost of ours. application: whose routes and handlers of errors are used, as they are by then."""

    def __init__(self, app: ASGIApp, application: FastAPI) -> None:
        self._app = app
        self._application = application
        self._fixed: dict[tuple[str, str], _DirectPath] = {}
        self._patterns: dict[str, list[_DirectPath]] = {}
        contexts = list(iter_route_contexts(application.routes))
        for context in contexts:
            route, path = context.original_route, context.path
            if not isinstance(route, DirectRoute) or path is None or ":" in path:
                continue
            if not _is_alone(context, contexts):
                continue
            handler = route.direct_handler(context.dependant)
            if handler is None:
                continue
            for method in context.methods or ():
                if "{" in path:
                    direct = _DirectPath(route, handler, context.path_regex)
                    self._patterns.setdefault(method, []).append(direct)
                else:
                    self._fixed[method, path] = _DirectPath(route, handler, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        direct, path_params = found
        scope["route"], scope["endpoint"] = direct.route, direct.route.endpoint
        scope["path_params"] = path_params
        request = DirectRequest(scope, receive, send)
        try:
            response = await direct.handler(request)
        except Exception as error:
            answer = self._answer_to(error)
            if answer is None:
                raise
            made = answer(request, error)
            response = await made if isawaitable(made) else made
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[_DirectPath, dict[str, str]] | None:
        if scope["type"] != "http" or scope.get("root_path"):
            return None
        method, path = scope["method"], scope["path"]
        direct = self._fixed.get((method, path))
        if direct is not None:
            return direct, {}
        for direct in self._patterns.get(method, ()):
            if direct.pattern is not None and (match := direct.pattern.match(path)):
                return direct, match.groupdict()
        return None

    def _answer_to(self, error: Exception) -> Any:
        """The application's handler of such an error, None without. A plain function must not block."""
        handlers = self._application.exception_handlers
        return next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)


def split_query(query: bytes) -> list[tuple[str, str]]:
    """Names and values as `parse_qsl` gives them, blank values kept."""
    if b"%" in query or b"+" in query:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    pairs = [pair.partition("=") for pair in query.decode("latin-1").split("&") if pair]
    return [(name, value) for name, _, value in pairs]


def _is_alone(context: RouteContext, contexts: list[RouteContext]) -> bool:
    """Whether no other route could take a request that looks like one for this."""
    methods = set(context.methods or ())
    example = _example(context)
    for other in contexts:
        if other.original_route is context.original_route or not methods & set(other.methods or ()):
            continue
        if _pattern(other).match(example) or _pattern(context).match(_example(other)):
            return False
    return True


def _example(context: RouteContext) -> str:
    return _PARAMETER.sub("x", context.path or "")


def _pattern(context: RouteContext) -> re.Pattern[str]:
    pattern: re.Pattern[str] = context.path_regex
    return pattern
