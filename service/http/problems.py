"""Renders every error as an RFC 9457 problem document."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException

from model_store.errors import ModelNotFoundError, ModelStoreError, NoEarlierVersionError
from service.errors import (
    BadRequestError,
    FieldError,
    InternalError,
    InvalidParameterError,
    MethodNotAllowedError,
    ModelUnusableError,
    NotFoundError,
    QueueUnavailableError,
    RequestError,
)
from service.logs import request_id_var

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_MAX_SHOWN_VALUE = 100
_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def problem_response(error: RequestError, instance: str, *, status: int | None = None) -> Response:
    """The answer for an error; `instance` is the request's path."""
    body: dict[str, Any] = {
        "type": f"/problems/{error.code.replace('_', '-')}",
        "title": error.title,
        "status": status or error.status,
        "detail": error.detail,
        "instance": instance,
        "code": error.code,
        "request_id": request_id_var.get(),
        "errors": [asdict(field) for field in error.errors],
    }
    headers = {"Cache-Control": "no-store", **error.headers}
    if error.retry_after_s is not None:
        body["retry_after_seconds"] = error.retry_after_s
        headers["Retry-After"] = str(error.retry_after_s)
    return JSONResponse(body, status or error.status, headers, media_type=MEDIA_TYPE)


def install_error_handlers(app: FastAPI) -> None:
    """Replace FastAPI's `{"detail"}` answers, also those of routing (404, 405) and of failing backends."""
    app.state.allowed_values = {}
    app.exception_handler(RequestError)(_on_request_error)
    app.exception_handler(RequestValidationError)(_on_validation_error)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.exception_handler(ModelStoreError)(_on_model_store_error)
    app.exception_handler(RedisError)(_on_redis_error)


def _on_request_error(request: Request, error: RequestError) -> Response:
    request.app.state.services.metrics.count_rejection(error)
    return problem_response(error, request.url.path)


def _on_validation_error(request: Request, error: RequestValidationError) -> Response:
    allowed = allowed_values(request)
    fields = [_field_error(item, allowed) for item in error.errors()]
    return problem_response(InvalidParameterError.of(*fields), request.url.path)


def _on_http_exception(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return problem_response(NotFoundError(f"There is nothing at {request.url.path}."), request.url.path)
    if error.status_code == 405:
        known = headers.get("Allow", "others")
        detail = f"{request.url.path} does not know {request.method}; it knows {known}."
        return problem_response(MethodNotAllowedError(detail, headers=headers), request.url.path)
    wrong = BadRequestError if error.status_code < 500 else InternalError
    return problem_response(
        wrong(str(error.detail), headers=headers), request.url.path, status=error.status_code
    )


def _on_model_store_error(request: Request, error: ModelStoreError) -> Response:
    if isinstance(error, NoEarlierVersionError):
        return problem_response(NotFoundError(f"{error}."), request.url.path)
    if isinstance(error, ModelNotFoundError):
        field = FieldError("model", "no such checkpoint", list(error.known) or None)
        return problem_response(NotFoundError(f"{error}.", errors=[field]), request.url.path)
    logger.error("checkpoint unusable", extra={"reason": str(error)})
    return problem_response(ModelUnusableError(f"{error}."), request.url.path)


def _on_redis_error(request: Request, error: RedisError) -> Response:
    logger.error("redis unavailable", extra={"reason": str(error)})
    detail = "The queue's database does not answer; nothing was changed. Try again soon, or look at /readyz."
    return problem_response(QueueUnavailableError(detail, retry_after_s=5), request.url.path)


def allowed_values(request: Request) -> dict[str, str | list[str]] | None:
    """What each query parameter of the request's route may be, from the OpenAPI document.

    None for a route that the document does not list.
    """
    path = getattr(request.scope.get("route"), "path", "")
    known: dict[tuple[str, str], Any] = request.app.state.allowed_values
    key = (path, request.method)
    if key not in known:
        operation = request.app.openapi()["paths"].get(path, {}).get(request.method.lower())
        if operation is None:
            return None
        parameters = [item for item in operation.get("parameters", []) if item["in"] == "query"]
        named = request.app.openapi().get("components", {}).get("schemas", {})
        known[key] = {item["name"]: describe_schema(item["schema"], named) for item in parameters}
    allowed: dict[str, str | list[str]] = known[key]
    return allowed


def describe_schema(schema: Mapping[str, Any], named: Mapping[str, Any] | None = None) -> str | list[str]:
    """A parameter's JSON schema in words: the list of its values, or its type and range.

    named: the schemas that a `$ref` may name.
    """
    for option in schema.get("anyOf", ()):
        if option.get("type") != "null":
            return describe_schema(option, named)
    if named and "$ref" in schema:
        return describe_schema(named[schema["$ref"].rpartition("/")[2]], named)
    if "enum" in schema:
        return [str(value) for value in schema["enum"]]
    if "const" in schema:
        return [str(schema["const"])]
    words = str(schema.get("type", "text"))
    for key, sign in _BOUNDS.items():
        if key in schema:
            words += f", {sign} {schema[key]}"
    if "pattern" in schema:
        words += f" like {schema['pattern']}"
    return words


def _field_error(item: Mapping[str, Any], allowed: Mapping[str, str | list[str]] | None) -> FieldError:
    name = str(item["loc"][-1]) if item["loc"] else "request"
    reason = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] != "missing":
        reason += f", not {shown(item['input'])}"
    return FieldError(name, reason, (allowed or {}).get(name))


def shown(value: object) -> str:
    """A client's value as text, cut short."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN_VALUE else f"{text[:_MAX_SHOWN_VALUE]}..."
