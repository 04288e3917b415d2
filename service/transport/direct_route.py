"""Routes whose parameters and dependencies are laid out once, not worked out again for each request.

FastAPI walks the tree of dependencies for every request, and asks of every parameter anew what it is called
and whether it is a list; for a route of twenty parameters that takes longer than its work. A DirectRoute is
declared and documented like any other. Where it holds anything but plain parameters and coroutines, FastAPI
handles it as ever.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from inspect import iscoroutinefunction, signature
from typing import Any, Final, NamedTuple

from fastapi import Request, Response
from fastapi._compat import (
    ModelField,
    field_annotation_is_sequence,
    get_missing_field_error,
    lenient_issubclass,
)
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import _get_param_aliases
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, _effective_route_context_var
from pydantic import BaseModel

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
_REQUIRED: Final = object()
_FAILED: Final = object()


class DirectRoute(APIRoute):
    """`route_class=` of a router; for endpoints that are coroutines and return a Response."""

    def get_route_handler(self) -> Handler:
        context = _effective_route_context_var.get()
        included = context is not None and context.original_route is self
        dependant: Dependant = context.dependant if context is not None and included else self.dependant
        return self.direct_handler(dependant) or super().get_route_handler()

    def direct_handler(self, dependant: Dependant) -> Handler | None:
        """What handles it; None if only FastAPI can."""
        try:
            return _handler(dependant)
        except _IndirectError:
            return None


class _IndirectError(Exception):
    """The route has something that only FastAPI handles."""


class _Parameter(NamedTuple):
    """key: what it is called in the request. known_as: the same as the request's own name is spelled."""

    name: str
    key: str
    known_as: str
    place: str
    default: Any
    field: ModelField


@dataclass(frozen=True, slots=True)
class _Step:
    """A call. inputs: its arguments that earlier steps give, by their numbers. defaults: by name."""

    call: Callable[..., Awaitable[Any]]
    inputs: tuple[tuple[str, int], ...]
    defaults: dict[str, Any]
    parameters: tuple[_Parameter, ...]
    request_names: tuple[str, ...]


def _handler(dependant: Dependant) -> Handler:
    """Raises _IndirectError."""
    if dependant.call is None or signature(dependant.call).return_annotation is not Response:
        raise _IndirectError
    steps: list[_Step] = []
    _lay_out(dependant, steps, {})

    async def handle(request: Request) -> Response:
        """Raises RequestValidationError."""
        sources: dict[str, Mapping[str, Any]] = {
            "query": dict(request.query_params.multi_items()),
            "header": _headers(request),
            "path": request.path_params,
        }
        results: list[Any] = []
        errors: list[Any] = []
        for step in steps:
            values, own = _values(step, sources) if step.parameters else ({}, [])
            errors += own
            if errors and (own or step is steps[-1] or any(results[i] is _FAILED for _, i in step.inputs)):
                results.append(_FAILED)
                continue
            for name, index in step.inputs:
                values[name] = results[index]
            for name in step.request_names:
                values[name] = request
            results.append(await step.call(**values))
        if errors:
            raise RequestValidationError(errors)
        response: Response = results[-1]
        return response

    return handle


def _lay_out(dependant: Dependant, steps: list[_Step], known: dict[Any, int]) -> int:
    """Append the steps of a dependant, its dependencies before it; the number of its own."""
    inputs = []
    for dependency in dependant.dependencies:
        number = known.get(dependency.call) if dependency.use_cache else None
        if number is None:
            number = _lay_out(dependency, steps, known)
            known[dependency.call] = number
        if dependency.name is not None:
            inputs.append((dependency.name, number))
    call = dependant.call
    others = (
        dependant.body_params,
        dependant.cookie_params,
        dependant.websocket_param_name,
        dependant.response_param_name,
        dependant.background_tasks_param_name,
        dependant.security_scopes_param_name,
        dependant.concurrency,
    )
    if call is None or any(others) or not _is_coroutine(call):
        raise _IndirectError
    parameters = [_parameter(field, "path") for field in dependant.path_params]
    parameters += [_parameter(field, "query") for field in dependant.query_params]
    parameters += [_parameter(field, "header") for field in dependant.header_params]
    names = (dependant.request_param_name, dependant.http_connection_param_name)
    defaults = {item.name: item.default for item in parameters if item.default is not _REQUIRED}
    request_names = tuple(name for name in names if name)
    steps.append(_Step(call, tuple(inputs), defaults, tuple(parameters), request_names))
    return len(steps) - 1


def _is_coroutine(call: Callable[..., Any]) -> bool:
    """Also of an object that is called by its class's method."""
    return iscoroutinefunction(call) or iscoroutinefunction(vars(type(call)).get("__call__"))


def _parameter(field: ModelField, place: str) -> _Parameter:
    info, aliases = field.field_info, _get_param_aliases(field)
    is_model = lenient_issubclass(info.annotation, BaseModel)
    if len(aliases) != 1 or is_model or field_annotation_is_sequence(info.annotation):
        raise _IndirectError
    default = _REQUIRED if info.is_required() else field.default
    if info.validate_default or info.default_factory is not None or isinstance(default, list | dict | set):
        raise _IndirectError
    key = aliases[0][1]
    return _Parameter(field.name, key, key.lower() if place == "header" else key, place, default, field)


def _values(step: _Step, sources: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], list[Any]]:
    """What the request gives for each parameter, and what is wrong with it."""
    values = step.defaults.copy()
    errors: list[Any] = []
    for name, key, known_as, place, default, field in step.parameters:
        given = sources[place].get(known_as)
        if given is None:
            if default is _REQUIRED:
                errors.append(get_missing_field_error(loc=(place, key)))
            continue
        value, wrong = field.validate(given, values, loc=(place, key))
        errors += wrong
        if not wrong:
            values[name] = value
    return values, errors


def _headers(request: Request) -> dict[str, str]:
    """By lower-case name; the first one of each."""
    found: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    return found
