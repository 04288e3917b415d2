"""The optional JSON body of POST /generate: a mix of classes, metadata, and whom to tell of the job's end."""

import base64
import binascii
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Request
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from starlette.requests import ClientDisconnect

from service.errors import BodyTooLargeError, FieldError, InvalidParameterError
from service.http.parameters import MAX_N
from worker.contract.messages import MetadataKey, MetadataValue
from worker.contract.webhook_ledger import Webhook
from worker.contract.webhook_target import MAX_URL_LENGTH, Networks, TargetError, resolve_target

MAX_BODY_BYTES: Final = 65_536
MAX_METADATA: Final = 32
MAX_MIX: Final = 64
_MIN_KEY_BYTES: Final = 24
_MAX_KEY_BYTES: Final = 64
"""Source of both: the Standard Webhooks specification."""

WebhookEvent = Literal["succeeded", "failed", "canceled", "expired"]
ALL_EVENTS: Final[tuple[WebhookEvent, ...]] = ("succeeded", "failed", "canceled", "expired")


_ClassSlug = Annotated[str, StringConstraints(min_length=1, max_length=64)]
_ClassImages = Annotated[int, Field(strict=True, ge=1, le=MAX_N)]


class _Request(BaseModel):
    # A value that is refused may be a secret in the wrong place: it is never shown.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class WebhookRequest(_Request):
    """Where to POST the job's body when it ends, and what to sign that with; no answer shows the secret."""

    url: str = Field(
        max_length=MAX_URL_LENGTH,
        description="https, to a public address; redirects are not followed",
        examples=["https://lab.example/masan"],
    )
    secret: SecretStr | None = Field(
        default=None,
        description="`whsec_` and 24 to 64 random bytes in base64; without it there is no signature",
    )
    events: list[WebhookEvent] = Field(
        default=list(ALL_EVENTS), min_length=1, max_length=len(ALL_EVENTS), description="Ends to tell of"
    )

    @field_validator("secret")
    @classmethod
    def _is_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        prefix, _, encoded = value.get_secret_value().partition("_")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if prefix != "whsec" or not _MIN_KEY_BYTES <= len(key) <= _MAX_KEY_BYTES:
            raise ValueError(f"must be whsec_ and {_MIN_KEY_BYTES} to {_MAX_KEY_BYTES} bytes in base64")
        return value


class GenerateOptions(_Request):
    """What does not fit a query parameter."""

    mix: dict[_ClassSlug, _ClassImages] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_MIX,
        description="Images of each class, in place of the parameters `class` and `n`",
        examples=[{"pro_b": 500, "pre_b": 200}],
    )
    metadata: dict[MetadataKey, MetadataValue] = Field(
        default={}, max_length=MAX_METADATA, description="Your own; the job shows it as it came"
    )
    webhook: WebhookRequest | None = None


_NO_OPTIONS: Final = GenerateOptions()

REQUEST_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "description": "What does not fit a query parameter",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GenerateOptions"}}},
        "required": False,
    }
}
"""`openapi_extra=` of a route that takes `OptionsDep`."""


async def read_options(request: Request) -> GenerateOptions:
    """The request's body, no longer than it may be; whoever may not ask has been refused before it is read.

    Its bytes are kept as `request.state.body`. Raises BodyTooLargeError, InvalidParameterError.
    """
    body, has_more = b"", True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        has_more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLargeError(f"The body has more than {MAX_BODY_BYTES} bytes.")
    request.state.body = body
    if not body:
        return _NO_OPTIONS
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise InvalidParameterError.of(
            FieldError("body", "is not sent as application/json", "application/json")
        )
    try:
        return GenerateOptions.model_validate_json(body)
    except ValidationError as error:
        raise InvalidParameterError.of(
            *[_field_error(item) for item in error.errors(include_url=False)]
        ) from None


OptionsDep = Annotated[GenerateOptions, Depends(read_options)]


def checked_webhook(options: GenerateOptions, allowed: Networks) -> Webhook | None:
    """The webhook asked for, once its host's addresses are found fit. Looks the host up, so it may block.

    Raises InvalidParameterError. The addresses are checked again, and then used, at each delivery.
    """
    asked = options.webhook
    if asked is None:
        return None
    try:
        resolve_target(asked.url, allowed)
    except TargetError as error:
        raise InvalidParameterError.of(
            FieldError("webhook.url", str(error), "https, to a public address")
        ) from error
    return Webhook(asked.url, tuple(asked.events), asked.secret.get_secret_value() if asked.secret else None)


_ALLOWED: Final = {
    "mix": f"1 to {MAX_MIX} classes, each with 1 to {MAX_N} images",
    "metadata": f"at most {MAX_METADATA} names of 1 to 64 letters, digits, ., _, -; texts of at most 512",
}


def _field_error(item: Any) -> FieldError:
    location = [str(part)[:100] for part in item["loc"]]
    name = ".".join(location) or "body"
    if item["type"] == "extra_forbidden":
        owner = WebhookRequest if len(location) > 1 else GenerateOptions
        return FieldError(name, "unknown field", list(owner.model_fields))
    allowed: str | list[str] | None = _ALLOWED.get(location[0]) if location else None
    if location[:2] == ["webhook", "events"]:
        allowed = [*ALL_EVENTS]
    return FieldError(name, str(item["msg"]).removeprefix("Value error, "), allowed)
