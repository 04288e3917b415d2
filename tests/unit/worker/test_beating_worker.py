import inspect

import pytest
from rq import SimpleWorker

from worker.beating_worker import BEAT_S, HEARTBEAT_TTL_S, POLL_S, STOP_LIMIT_S, WORKER_TTL_S, BeatingWorker


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("prepare_execution", ["self", "job"]),
        ("perform_job", ["self", "job", "queue", "execution"]),
        ("maintain_heartbeats", ["self", "job", "execution"]),
        ("heartbeat", ["self", "timeout", "pipeline"]),
        ("execute_job", ["self", "job", "queue"]),
        ("get_heartbeat_ttl", ["self", "job", "working_time"]),
        ("dequeue_job_and_maintain_ttl", ["self", "timeout", "max_idle_time"]),
        ("request_stop", ["self", "signum", "frame"]),
        ("request_force_stop", ["self", "signum", "frame"]),
        ("kill_horse", ["self", "sig"]),
    ],
)
def test_rq_internals_are_what_we_build_on(method: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(SimpleWorker, method)).parameters) == parameters
    assert list(inspect.signature(getattr(BeatingWorker, method)).parameters) == parameters


def test_a_job_outlives_several_missed_beats() -> None:
    assert 3 * BEAT_S < HEARTBEAT_TTL_S < WORKER_TTL_S


def test_a_worker_is_gone_before_a_supervisor_kills_it() -> None:
    assert POLL_S + STOP_LIMIT_S < 15
