"""What processes of two releases tell each other during a rolling upgrade, and what Redis and stores keep."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from worker.contract import messages

EARLIER: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("messages_of_0_1.json").read_text())
"""As they were first written; an entry stays as it is for as long as jobs of that release may be around."""


@pytest.mark.parametrize("name", EARLIER)
def test_messages_of_an_earlier_release_are_read(name: str) -> None:
    kind = getattr(messages, name)

    read = kind.model_validate(EARLIER[name])

    told = {key: value for key, value in EARLIER[name].items() if value is not None}
    assert read.to_wire().items() >= told.items()


@pytest.mark.parametrize("name", EARLIER)
def test_an_earlier_release_reads_what_uses_nothing_new(name: str) -> None:
    """It refuses fields that it does not know; none is written that nobody asked for."""
    read = getattr(messages, name).model_validate(EARLIER[name])

    assert read.to_wire().keys() <= EARLIER[name].keys()


@pytest.mark.parametrize("name", ["ChunkResult", "ImageRow"])
def test_what_a_later_worker_tells_besides_is_left_out(name: str) -> None:
    kind = getattr(messages, name)

    later = kind.model_validate({**EARLIER[name], "of_the_next_release": 1})

    assert later == kind.model_validate(EARLIER[name])


@pytest.mark.parametrize("name", ["ChunkRequest", "JobSpec", "ReportRequest"])
def test_a_request_with_an_unknown_field_is_not_acted_on(name: str) -> None:
    """Images made without regard to it would be others than those asked for."""
    with pytest.raises(ValidationError, match="of_the_next_release"):
        getattr(messages, name).model_validate({**EARLIER[name], "of_the_next_release": 1})


def test_a_job_of_an_earlier_release_is_cut_into_the_same_chunks() -> None:
    spec = messages.JobSpec.model_validate(EARLIER["JobSpec"])

    first, *_, last = spec.chunks()
    assert (
        first.to_wire().items()
        >= {key: value for key, value in EARLIER["ChunkRequest"].items() if value is not None}.items()
    )
    assert [(first.start, first.count), (last.start, last.count)] == [(0, 64), (448, 52)]
