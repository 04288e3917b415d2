"""What FastAPI's OpenAPI document lacks: problem answers, shared by all routes."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from service.errors import request_errors
from service.http.problem_schema import Problem
from service.http.problems import MEDIA_TYPE

_ANYWHERE = (401, 403, 413, 414, 422, 429, 431, 500, 503)
_REFERENCE = {"$ref": "#/components/schemas/Problem"}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: these statuses and those any route may give, as problem documents."""
    return {
        status: {"description": _titles(status), "content": {MEDIA_TYPE: {"schema": _REFERENCE}}}
        for status in sorted({*statuses, *_ANYWHERE})
    }


def install_openapi(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Make the document complete: the schemas that routes refer to by name, `bodies` among them."""

    models: tuple[type[BaseModel], ...] = (Problem, *bodies)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            for model in models:
                body = model.model_json_schema(ref_template="#/components/schemas/{model}")
                definitions = body.pop("$defs", {})
                schema.setdefault("components", {}).setdefault("schemas", {}).update(
                    {model.__name__: body, **definitions}
                )
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def render(app: FastAPI) -> str:
    """The document as docs/openapi.json holds it."""
    return json.dumps(app.openapi(), indent=1, ensure_ascii=False) + "\n"


def _titles(status: int) -> str:
    titles = sorted(
        f"{error.title} (`{error.code}`)" for error in request_errors().values() if error.status == status
    )
    return "; ".join(titles) or "See `code`"
