"""Parts keep their order, are done at once where asked, and fail aloud."""

import threading
import time

import pytest

from model_store.quality.parallel import available_cores, in_parallel


@pytest.mark.parametrize("workers", [1, 3])
def test_results_keep_the_order_of_the_parts(workers: int) -> None:
    def slow_first(part: int) -> int:
        time.sleep(0.02 if part == 0 else 0)
        return part * part

    assert list(in_parallel(slow_first, range(6), workers)) == [0, 1, 4, 9, 16, 25]


def test_parts_are_done_at_once() -> None:
    both_here = threading.Barrier(2, timeout=5)

    assert list(in_parallel(lambda _: both_here.wait() >= 0, range(2), 2)) == [True, True]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_part_is_raised_and_the_rest_is_left(workers: int) -> None:
    begun: list[int] = []

    def fail_at_two(part: int) -> None:
        begun.append(part)
        time.sleep(0.005)
        if part == 2:
            raise ValueError("part 2")

    with pytest.raises(ValueError, match="part 2"):
        list(in_parallel(fail_at_two, range(100), workers))
    assert len(begun) < 100


def test_there_is_a_core() -> None:
    assert available_cores() >= 1
