"""What POST /generate takes beside its body, and all of it checked together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

from fastapi import Depends, Header, Query
from pydantic import BeforeValidator, Field

from model_store.image_id import MAX_WALK_FRAMES, MIN_WALK_FRAMES, Walk
from service.archives.formats import archive_formats
from service.errors import FieldError, InvalidParameterError, TooManyImagesError
from service.http.parameters import (
    MAX_N,
    ModelParameter,
    OptionalClassParameter,
    OptionalCountParameter,
    SeedParameter,
    TruncationParameter,
    WalkParameter,
    plain_digits,
)
from service.http.problems import shown
from service.jobs.generate_options import GenerateOptions, OptionsDep
from service.jobs.generation import INTERACTIVE_MAX_IMAGES
from worker.contract.messages import (
    DEFAULT_JPEG_QUALITY,
    ArchiveFormat,
    GateLevel,
    ImageEncoding,
    ImageFormat,
    Priority,
)

MAX_DEADLINE_S: Final = 7 * 86_400
_DURATION: Final = re.compile(r"([0-9]{1,7})|(?=[0-9])(?:([0-9]{1,3})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,7})s)?")
_DURATION_ALLOWED: Final = f"1s to {MAX_DEADLINE_S}s, as 90, 90s, 15m, 2h or 1h30m"

_Quality = Annotated[int, Field(ge=1, le=100), BeforeValidator(plain_digits)]
_Deadline = Annotated[int, Field(ge=1, le=MAX_DEADLINE_S), BeforeValidator(plain_digits)]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that makes sense in itself. mix: images of each class. deadline_s: from now."""

    mix: Mapping[str, int]
    seed: int | None
    truncation: float
    walk: Walk | None
    model: str | None
    format: ArchiveFormat
    encoding: ImageEncoding
    gate: GateLevel
    priority: Priority | None
    deadline_s: int | None
    options: GenerateOptions

    @property
    def class_field(self) -> str:
        """Where the request names its classes."""
        return "class" if self.options.mix is None else "mix"


async def read_asked(
    options: OptionsDep,
    class_slug: OptionalClassParameter = None,
    n: OptionalCountParameter = None,
    seed: SeedParameter = None,
    truncation: TruncationParameter = 1.0,
    walk_to_seed: WalkParameter = None,
    model: ModelParameter = None,
    format: Annotated[ArchiveFormat, Query(description="Of the archive")] = "zip",  # noqa: A002  # the API's name
    image_format: Annotated[
        ImageFormat, Query(description="Of the images; png and webp without quality lose nothing")
    ] = "png",
    quality: Annotated[
        _Quality | None, Query(description=f"Of jpeg ({DEFAULT_JPEG_QUALITY} if absent) or a lossy webp")
    ] = None,
    gate: Annotated[GateLevel, Query(description="How strictly images are judged")] = GateLevel.DEFAULT,
    priority: Annotated[
        Priority | None,
        Query(description=f"interactive for {INTERACTIVE_MAX_IMAGES} images at most; default: by n"),
    ] = None,
    deadline: Annotated[
        _Deadline | None, Query(description="Seconds after which the unfinished job expires")
    ] = None,
    cancel_after: Annotated[
        str | None, Header(alias="Cancel-After", description="As `deadline`: 90, 90s, 15m, 1h30m")
    ] = None,
) -> Asked:
    """Raises InvalidParameterError, TooManyImagesError."""
    mix = _mix_of(options, class_slug, n)
    total = sum(mix.values())
    if priority is Priority.INTERACTIVE and total > INTERACTIVE_MAX_IMAGES:
        reason = f"interactive jobs have at most {INTERACTIVE_MAX_IMAGES} images, not {total}"
        raise _refused("priority", reason, [Priority.BATCH.value])
    encoding = _encoding(image_format, quality)
    _check_format(format, encoding)
    return Asked(
        mix=mix,
        seed=seed,
        truncation=truncation,
        walk=_walk(mix, seed, walk_to_seed, gate),
        model=model,
        format=format,
        encoding=encoding,
        gate=gate,
        priority=priority,
        deadline_s=_deadline(deadline, cancel_after),
        options=options,
    )


AskedDep = Annotated[Asked, Depends(read_asked)]


def _walk(mix: Mapping[str, int], seed: int | None, to_seed: int | None, gate: GateLevel) -> Walk | None:
    """Raises InvalidParameterError for what no walk can be made of."""
    if to_seed is None:
        return None
    frames = sum(mix.values())
    if len(mix) != 1:
        raise _refused("walk_to_seed", f"is given with {len(mix)} classes; a walk has one", "one class and n")
    if not MIN_WALK_FRAMES <= frames <= MAX_WALK_FRAMES:
        allowed = f"{MIN_WALK_FRAMES} to {MAX_WALK_FRAMES}"
        raise _refused("n", f"{frames} frames are no walk; one has {allowed}", allowed)
    if to_seed == seed:
        raise _refused("walk_to_seed", f"is {to_seed}, as seed; a walk goes elsewhere", "another seed")
    if gate is not GateLevel.OFF:
        reason = f"a walk takes no gate, not {gate}: a frame that is replaced would not lie on it"
        raise _refused("gate", reason, [GateLevel.OFF.value])
    return Walk(to_seed, frames)


def parse_duration(text: str) -> int | None:
    """Seconds, None for what is no duration of 1..MAX_DEADLINE_S."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return None
    plain, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = plain + 3600 * hours + 60 * minutes + seconds
    return total if 1 <= total <= MAX_DEADLINE_S else None


def _mix_of(options: GenerateOptions, class_slug: str | None, n: int | None) -> Mapping[str, int]:
    given = {"class": class_slug, "n": n}
    if options.mix is not None:
        if beside := [name for name, value in given.items() if value is not None]:
            reason = f"is given beside {' and '.join(beside)}"
            raise _refused("mix", reason, "either class and n, or mix in the body")
        mix = dict(options.mix)
        name = "mix"
    else:
        missing = [name for name, value in given.items() if value is None]
        if class_slug is None or n is None:
            detail = "; ".join(f"{name}: Field required" for name in missing)
            allowed = {"class": "a class, see /classes", "n": f"integer, >= 1, <= {MAX_N}"}
            raise InvalidParameterError(
                f"{detail}. Give class and n, or mix in the body.",
                errors=[FieldError(name, "Field required", allowed[name]) for name in missing],
            )
        mix, name = {class_slug: n}, "n"
    total = sum(mix.values())
    if total > MAX_N:
        field = FieldError(name, f"must be at most {MAX_N}, not {total}", f"integer, >= 1, <= {MAX_N}")
        raise TooManyImagesError(
            f"{name} asks for {total} images; one job makes at most {MAX_N}.", errors=[field]
        )
    return mix


@lru_cache(maxsize=512)
def _encoding(image_format: ImageFormat, quality: int | None) -> ImageEncoding:
    if image_format == "png" and quality is not None:
        raise _refused("quality", "png loses nothing and has no quality", "none; or image_format jpeg, webp")
    if image_format == "jpeg":
        return ImageEncoding(format="jpeg", quality=quality or DEFAULT_JPEG_QUALITY)
    return ImageEncoding(format=image_format, quality=quality)


def _check_format(archive_format: ArchiveFormat, encoding: ImageEncoding) -> None:
    here = archive_formats()
    if archive_format not in here:
        raise _refused("format", f"{archive_format} needs pyarrow, which is not installed here", list(here))
    if archive_format == "npz" and not encoding.is_lossless:
        reason = f"npz holds the pixels as drawn, which {encoding.format} of quality {encoding.quality} loses"
        raise _refused("format", reason, [name for name in here if name != "npz"])


def _deadline(deadline_s: int | None, cancel_after: str | None) -> int | None:
    if cancel_after is None:
        return deadline_s
    seconds = parse_duration(cancel_after)
    if seconds is None:
        raise _refused("Cancel-After", f"is no duration, given as {shown(cancel_after)}", _DURATION_ALLOWED)
    if deadline_s not in {None, seconds}:
        reason = f"is {seconds} s, but the parameter deadline {deadline_s} s"
        raise _refused("Cancel-After", reason, "one of them, or the same time in both")
    return seconds


def _refused(name: str, reason: str, allowed: str | list[str]) -> InvalidParameterError:
    return InvalidParameterError(f"{name}: {reason}.", errors=[FieldError(name, reason, allowed)])
