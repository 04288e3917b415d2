from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from worker.contract import keys
from worker.contract.messages import ChunkRequest, ClassCount, JobSpec, JobStatus, ModelRef

MODEL = ModelRef(name="tiny", version="1", digest="ab" * 32)


def _spec(counts: list[int], chunk_images: int, first_chunk_images: int | None = None) -> JobSpec:
    parts = tuple(
        ClassCount(class_slug=f"class_{i}", class_index=i, count=count) for i, count in enumerate(counts)
    )
    return JobSpec(
        job_id="job_1",
        model=MODEL,
        parts=parts,
        seed=7,
        chunk_images=chunk_images,
        first_chunk_images=first_chunk_images,
    )


@settings(deadline=None)  # a first example may find the machine busy
@given(
    counts=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    chunk_images=st.integers(1, 64),
    first=st.none() | st.integers(1, 80),
)
def test_chunks_cover_every_image_once(counts: list[int], chunk_images: int, first: int | None) -> None:
    spec = _spec(counts, chunk_images, first)
    chunks = list(spec.chunks())

    covered = [(c.class_index, index) for c in chunks for index in range(c.start, c.start + c.count)]
    assert covered == [(i, index) for i, count in enumerate(counts) for index in range(count)]
    assert [chunk.chunk_index for chunk in chunks] == list(range(spec.chunk_count))
    assert spec.total == len(covered)
    assert [spec.chunk(chunk.chunk_index) for chunk in chunks] == chunks


def test_the_first_chunk_of_a_job_may_be_smaller() -> None:
    spec = _spec([11, 3], 4, first_chunk_images=2)

    assert [(c.class_index, c.start, c.count) for c in spec.chunks()] == [
        (0, 0, 2),
        (0, 2, 4),
        (0, 6, 4),
        (0, 10, 1),
        (1, 0, 3),
    ]


@pytest.mark.parametrize("chunk_index", [-1, 2])
def test_a_chunk_that_is_none_is_an_index_error(chunk_index: int) -> None:
    with pytest.raises(IndexError):
        _spec([10], 5).chunk(chunk_index)


@pytest.mark.parametrize(
    ("field", "value"),
    [("count", 0), ("count", 257), ("seed", 2**64), ("seed", -1), ("truncation", 0), ("truncation", 1.5)],
)
def test_a_chunk_request_is_bounded(field: str, value: float) -> None:
    fields: dict[str, Any] = _spec([10], 5).chunk(0).model_dump()

    with pytest.raises(ValidationError, match=field):
        ChunkRequest.model_validate(fields | {field: value})


def test_final_states() -> None:
    assert {status for status in JobStatus if not status.is_final} == {
        JobStatus.QUEUED,
        JobStatus.RUNNING,
        JobStatus.CANCELING,
    }


def test_paths_and_keys_belong_to_their_job() -> None:
    assert keys.shard_path("job_1", 3) == "job_1/00003.tar"
    assert keys.sidecar_path("job_1", 3) == "job_1/00003.jsonl"
    assert len({keys.job_key("a"), keys.done_key("a"), keys.events_key("a"), keys.job_key("b")}) == 4
    assert keys.chunk_job_id("a", 1) != keys.chunk_job_id("a", 1, attempt=2)
