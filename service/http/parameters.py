"""Query parameters: their types, and the check that a request carries no others and none twice."""

import re
from typing import Annotated, Any

from fastapi import Path, Query, Request
from pydantic import AfterValidator, BeforeValidator, Field

from model_store.image_id import MAX_SEED, TRUNCATION_STEPS
from service.errors import FieldError, InvalidParameterError
from service.http.problems import allowed_values, shown
from service.settings import MODEL_REFERENCE_PATTERN
from worker.contract.messages import MAX_REPORT_IMAGES, MIN_REPORT_IMAGES

MAX_N = 50_000
"""Images of one job."""

_DIGITS = re.compile(r"^[0-9]{1,40}$")


def plain_digits(value: Any) -> Any:
    """Keep out what Python's int() takes beside digits: spaces, signs, underscores."""
    if isinstance(value, str) and not _DIGITS.match(value):
        raise ValueError("must be a whole number in decimal digits")
    return value


def _on_the_grid(truncation: float) -> float:
    """An image's id spells the truncation in steps; a value between two would be another image."""
    steps = round(truncation * TRUNCATION_STEPS)
    if steps < 1 or abs(truncation * TRUNCATION_STEPS - steps) > 1e-6:
        raise ValueError(f"must be a multiple of 1/{TRUNCATION_STEPS}")
    return steps / TRUNCATION_STEPS


OptionalClassParameter = Annotated[
    str | None,
    Query(
        alias="class",
        description="One of the checkpoint's classes, see /classes; left out with `mix` in the body",
        examples=["pro_b"],
    ),
]
# Bounds stand before the validator: the JSON schema shows those of the innermost type only.
_Count = Annotated[int, Field(ge=1, json_schema_extra={"maximum": MAX_N}), BeforeValidator(plain_digits)]
_ReportCount = Annotated[
    int, Field(ge=MIN_REPORT_IMAGES, le=MAX_REPORT_IMAGES), BeforeValidator(plain_digits)
]
_Seed = Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(plain_digits)]
_Truncation = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), AfterValidator(_on_the_grid)]

OptionalCountParameter = Annotated[
    _Count | None, Query(description="Images to make; left out with `mix` in the body", examples=[500])
]
SeedParameter = Annotated[
    _Seed | None,
    Query(description="The same seed gives the same images; drawn and told in the answer if absent"),
]
WalkParameter = Annotated[
    _Seed | None,
    Query(description="`n` frames of a walk from the first image of `seed` to this one's; with gate=off"),
]
TruncationParameter = Annotated[_Truncation, Query(description="Scales the latents, in steps of 0.0001")]
ModelParameter = Annotated[
    str | None,
    Query(
        pattern=MODEL_REFERENCE_PATTERN,
        description="`name`, `name@version` or `name@alias`; default: the checkpoint in production",
        examples=["b-all@production"],
    ),
]
ReportCountParameter = Annotated[_ReportCount, Query(description="Generated images of each class")]
ReportIdParameter = Annotated[str, Path(description="As given by POST /reports")]
JobIdParameter = Annotated[str, Path(description="As given by POST /generate")]


def unknown_cursor() -> InvalidParameterError:
    """For a page that does not follow another."""
    reason = "is none that this service gave"
    field = FieldError("cursor", reason, "next_cursor of an earlier page")
    return InvalidParameterError(f"cursor: {reason}.", errors=[field])


async def check_parameters(request: Request) -> None:
    """Refuses parameters that the route does not have, and repeated ones. Raises InvalidParameterError."""
    allowed = allowed_values(request)
    if allowed is None:
        return
    names = [name for name, _ in request.query_params.multi_items()]
    if allowed.keys() >= set(names) and len(set(names)) == len(names):
        return
    known = sorted(allowed)
    errors = [
        FieldError(name[:100], f"unknown parameter, given as {shown(request.query_params[name])}", known)
        for name in dict.fromkeys(names)
        if name not in allowed
    ]
    errors += [
        FieldError(name, f"given {names.count(name)} times", allowed[name])
        for name in dict.fromkeys(names)
        if name in allowed and names.count(name) > 1
    ]
    if errors:
        listed = "; ".join(f"{error.name}: {error.reason}" for error in errors)
        takes = ", ".join(known) or "no parameters"
        raise InvalidParameterError(f"{listed}. This resource takes {takes}.", errors=errors)
