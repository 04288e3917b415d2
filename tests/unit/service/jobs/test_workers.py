"""Chunks are sized by what the workers were measured at."""

import pytest

from service.jobs.queues import seconds_until
from service.jobs.workers import WorkerStatus, chunk_size, first_chunk_size


def worker(speed: float | None, **changes: object) -> WorkerStatus:
    row = {"name": "w", "state": "idle", "digest": "d", "heartbeat": 1.0, "images_per_second": speed}
    return WorkerStatus.model_validate(row | changes)


@pytest.mark.parametrize(("slowest", "images"), [(8.0, 16), (0.5, 4), (1000.0, 256), (0.0, 16), (10.0, 20)])
def test_chunk_is_two_seconds_of_the_slowest(slowest: float, images: int) -> None:
    assert chunk_size(slowest) == images


@pytest.mark.parametrize(("n", "images"), [(1, None), (15, None), (16, 2), (50_000, 2)])
def test_a_job_that_is_not_small_has_a_small_first_chunk(n: int, images: int | None) -> None:
    assert first_chunk_size(n) == images


@pytest.mark.parametrize(
    ("state", "digest", "warm"),
    [("idle", "d", True), ("busy", "d", True), ("idle", None, False), ("starting", "d", False)],
)
def test_warm_is_loaded_and_serving(state: str, digest: str | None, warm: bool) -> None:
    assert worker(1.0, state=state, digest=digest).is_warm is warm


@pytest.mark.parametrize(
    ("images", "speed", "seconds"), [(50, 10.0, 5), (1, 100.0, 1), (10**6, 1.0, 3600), (5, 0.0, 30)]
)
def test_waiting_time_follows_the_speed(images: int, speed: float, seconds: int) -> None:
    assert seconds_until(images, speed) == seconds
