import time

import pytest
import torch

from worker.calibration import best, doublings, passes_at_once, rate


@pytest.mark.parametrize(
    ("cores", "counts"),
    [
        (1, [1]),
        (2, [1, 2]),
        (3, [1, 2, 3]),
        (4, [1, 2, 4]),
        (12, [1, 2, 4, 8, 12]),
        (64, [1, 2, 4, 8, 16, 32, 64]),
    ],
)
def test_candidates_double_up_to_the_cores(cores: int, counts: list[int]) -> None:
    assert doublings(cores) == counts


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ([1.0, 1.9, 3.7], 4),
        ([1.0, 0.95, 0.85], 2),
        ([1.0, 1.9, 1.8], 4),
        ([1.0, 1.9, 1.5], 2),
        ([1.0, 0.2, 0.1], 1),
        ([1.0, 0.9, 1.2], 4),
    ],
)
def test_as_many_passes_are_taken_as_do_not_slow_one_another_down(speeds: list[float], chosen: int) -> None:
    assert best([1, 2, 4], speeds) == chosen


def test_a_rate_counts_all_threads() -> None:
    runs: list[float] = []

    def work() -> None:
        time.sleep(0.005)
        runs.append(time.perf_counter())

    began = time.perf_counter()
    found = rate(work, 4, 0.1)
    took = time.perf_counter() - began

    assert len(runs) / took <= found <= len(runs) / 0.1


def test_a_gpu_and_a_single_core_run_one() -> None:
    assert passes_at_once(torch.device("cuda"), cores=8) == 1
    assert passes_at_once(torch.device("cpu"), cores=1) == 1


def test_a_cpu_is_measured() -> None:
    started = time.monotonic()

    assert passes_at_once(torch.device("cpu"), cores=3) in {1, 2, 3}
    assert time.monotonic() - started < 30  # two seconds of its own, whatever else runs here
