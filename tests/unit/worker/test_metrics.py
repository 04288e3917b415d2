import urllib.request

import torch
from prometheus_client import generate_latest

from worker.metrics import STAGES, WorkerMetrics

CPU = torch.device("cpu")


def test_stages_are_there_from_the_start_and_timed() -> None:
    metrics = WorkerMetrics(CPU)
    for stage in STAGES:
        assert _value(metrics, "masan_stage_duration_seconds_count", stage=stage) == 0

    with metrics.stage("write"):
        pass

    assert _value(metrics, "masan_stage_duration_seconds_count", stage="write") == 1


def test_a_stage_that_raises_is_timed_too() -> None:
    metrics = WorkerMetrics(CPU)
    try:
        with metrics.stage("sample"):
            raise KeyError
    except KeyError:
        pass

    assert _value(metrics, "masan_stage_duration_seconds_count", stage="sample") == 1


def test_two_workers_in_a_process_do_not_share_families() -> None:
    one, two = WorkerMetrics(CPU), WorkerMetrics(CPU)

    one.busy_seconds.inc(3)

    assert _value(two, "masan_worker_busy_seconds_total") == 0


def test_metrics_are_served_on_a_free_port() -> None:
    metrics = WorkerMetrics(CPU)

    port = metrics.serve("127.0.0.1", 0)

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert answer.read() == generate_latest(metrics.registry)
    metrics.close()


def _value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)
