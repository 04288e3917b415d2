"""Where an image of a job lies: in which chunk, at which place."""

import pytest

from service.results.images import Place, place_of
from worker.contract.messages import ClassCount, JobSpec, ModelRef


def spec_of(*counts: int, chunk_images: int, first: int | None = None) -> JobSpec:
    return JobSpec(
        job_id="job_x",
        model=ModelRef(name="tiny", version="1", digest="a" * 64),
        parts=tuple(
            ClassCount(class_slug=f"class_{index}", class_index=index, count=count)
            for index, count in enumerate(counts)
        ),
        seed=7,
        chunk_images=chunk_images,
        first_chunk_images=first,
    )


@pytest.mark.parametrize("counts", [(1,), (10,), (12, 8), (3, 1, 9)])
@pytest.mark.parametrize("chunk_images", [1, 4, 100])
@pytest.mark.parametrize("first", [None, 1, 3])
def test_places_go_through_all_chunks_in_order(
    counts: tuple[int, ...], chunk_images: int, first: int | None
) -> None:
    spec = spec_of(*counts, chunk_images=chunk_images, first=first)

    places = [place_of(spec, position) for position in range(spec.total)]

    assert places == [Place(chunk.chunk_index, i) for chunk in spec.chunks() for i in range(chunk.count)]


def test_there_is_no_place_past_the_last() -> None:
    with pytest.raises(IndexError):
        place_of(spec_of(12, 8, chunk_images=5), 20)
