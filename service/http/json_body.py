"""A small JSON body: read after the key was checked, refused by the names of its fields."""

from typing import Any, Final, TypeVar

from fastapi import Depends, Request, params
from pydantic import BaseModel, ValidationError

from service.errors import BodyTooLargeError, FieldError, InvalidParameterError
from service.http.problems import describe_schema, shown

MAX_BYTES: Final = 16_384

_T = TypeVar("_T", bound=BaseModel)


def json_body(model: type[_T]) -> params.Depends:
    """A dependency that gives the body as a `model`.

    FastAPI would read the body before any dependency runs, and so before it is known who asks.
    """

    async def read(request: Request) -> _T:
        body = b""
        async for block in request.stream():
            body += block
            if len(body) > MAX_BYTES:
                raise BodyTooLargeError(f"The body has more than {MAX_BYTES} bytes.")
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise InvalidParameterError.of(
                FieldError("body", "is not sent as application/json", "application/json")
            )
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            schema = model.model_json_schema()
            raise InvalidParameterError.of(
                *[_field_error(item, schema) for item in error.errors(include_url=False)]
            ) from None

    dependency: params.Depends = Depends(read)
    return dependency


def request_body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra=` of a route that takes `json_body(model)`; the model refers to no other."""
    content = {"application/json": {"schema": model.model_json_schema(), "example": example}}
    return {"requestBody": {"content": content, "required": True}}


def _field_error(item: Any, schema: dict[str, Any]) -> FieldError:
    if not item["loc"]:
        return FieldError("body", str(item["msg"])[:200], "a JSON object")
    name = str(item["loc"][0])[:100]
    if item["type"] == "extra_forbidden":
        return FieldError(name, "unknown field", sorted(schema["properties"]))
    reason = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] != "missing":
        reason += f", not {shown(item['input'])}"
    described = schema["properties"].get(name)
    return FieldError(name, reason, describe_schema(described) if described else None)
