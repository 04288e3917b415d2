"""What a client would rather have: `Prefer` (RFC 7240) and `Accept` with its weights (RFC 9110, 12.5.1)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import FieldError, NotAcceptableError

MAX_WAIT_S: Final = 60
_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_PREFERENCE: Final = re.compile(rf'\s*({_WORD})\s*(?:=\s*(?:({_WORD})|"((?:[^"\\]|\\.)*)"))?\s*(?:[;,]|$)')
_PARAMETER: Final = re.compile(rf'\s*({_WORD})\s*=\s*(?:({_WORD})|"((?:[^"\\]|\\.)*)")\s*')
_WEIGHT: Final = re.compile(r"^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$")


@dataclass(frozen=True, slots=True)
class Preferences:
    """wait_s: how long the client would wait, 0..60, None if it did not say."""

    wait_s: int | None = None
    respond_async: bool = False

    @property
    def patience_s(self) -> int:
        """How long to wait before answering: not at all for one that wants no wait or did not say."""
        return 0 if self.respond_async else self.wait_s or 0

    @property
    def applied(self) -> str | None:
        """Value of `Preference-Applied`."""
        if self.respond_async:
            return "respond-async"
        return None if self.wait_s is None else f"wait={self.wait_s}"


_NONE: Final = Preferences()


def parse_prefer(header: str | None) -> Preferences:
    """Unknown and malformed preferences are ignored, as RFC 7240 says; of a repeated one the first counts.

    `wait` is capped to MAX_WAIT_S. `respond-async` beside `wait` is this service's `respond-async`: a job is
    accepted in less time than anybody would wait.
    """
    if not header:
        return _NONE
    found: dict[str, str] = {}
    position = 0
    text = header
    while position < len(text):
        match = _PREFERENCE.match(text, position)
        if match is None:
            end = re.compile(r"[,;]").search(text, position)
            position = end.end() if end else len(text)
            continue
        found.setdefault(match[1].lower(), match[2] or match[3] or "")
        position = match.end()
    wait = found.get("wait", "")
    wait_s = min(int(wait), MAX_WAIT_S) if re.fullmatch(r"[0-9]{1,9}", wait) else None
    return Preferences(wait_s, "respond-async" in found)


def negotiate(accept: str | None, offers: Sequence[str]) -> str:
    """The media type of `offers` that the client wants most; of equal ones the first.

    No header takes anything. Raises NotAcceptableError.
    """
    if accept is None or accept.strip() in {"", "*/*"}:
        return offers[0]
    ranges = list(_ranges(accept))
    weighed = [(_weight_of(offer, ranges), -position) for position, offer in enumerate(offers)]
    weight, position = max(weighed)
    if weight <= 0:
        raise NotAcceptableError(
            f"Accept: {accept[:200]!r} takes none of {', '.join(offers)}.",
            errors=[FieldError("Accept", "takes nothing that there is", list(offers))],
            headers={"Vary": "Accept"},
        )
    return offers[-position]


def prefers(accept: str | None, media_type: str, other: str) -> bool:
    """Whether the client wants `media_type` more than `other`; refuses nobody, as `negotiate` would."""
    ranges = list(_ranges(accept or ""))
    return _weight_of(media_type, ranges) > _weight_of(other, ranges)


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Media ranges with their weights, without other parameters; what cannot be read is no range."""
    for item in accept.split(","):
        media_range, *parameters = item.split(";")
        weight = 1.0
        for text in parameters:
            match = _PARAMETER.fullmatch(text)
            if match and match[1].lower() == "q":
                value = match[2] or ""
                weight = float(value) if _WEIGHT.match(value) else 0.0
        yield media_range.strip().lower(), weight


def _weight_of(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """That of the most specific range the offer falls into, 0 for none."""
    kind = offer.partition("/")[0]
    for wanted in (offer, f"{kind}/*", "*/*"):
        weights = [weight for media_range, weight in ranges if media_range == wanted]
        if weights:
            return max(weights)
    return 0.0
