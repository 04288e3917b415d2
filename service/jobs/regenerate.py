"""The request that makes a job's images again, told where they are gone or were never made."""

import json
from urllib.parse import urlencode

from service.jobs.record import JobRecord


def regenerate_hint(job: JobRecord) -> str:
    """A sentence with the request that makes the same images again."""
    mix = {part.class_slug: part.count for part in job.spec.parts}
    body = f" with the body {json.dumps({'mix': mix})}" if len(mix) > 1 else ""
    return f"The same images come from POST {_regenerate_path(job)}{body}."


def regenerate_link(job: JobRecord) -> dict[str, str]:
    """The same for programs, as a header."""
    return {"Link": f'<{_regenerate_path(job)}>; rel="regenerate"'}


def _regenerate_path(job: JobRecord) -> str:
    """The request that makes the same images again; a mix besides needs its body."""
    spec = job.spec
    asked: dict[str, str | int] = {}
    if len(spec.parts) == 1:
        asked = {"class": spec.parts[0].class_slug, "n": spec.total}
    asked |= {"seed": spec.seed, "truncation": f"{spec.truncation:g}", "model": spec.model.reference}
    chosen = {
        "walk_to_seed": (None if spec.walk is None else spec.walk.to_seed, None),
        "format": (spec.format, "zip"),
        "image_format": (spec.encoding.format, "png"),
        "quality": (spec.encoding.quality, None),
        "gate": (spec.gate.value, "default"),
    }
    asked |= {
        name: value for name, (value, default) in chosen.items() if value is not None and value != default
    }
    return f"/generate?{urlencode(asked, safe='@')}"
