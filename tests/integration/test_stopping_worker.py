"""A worker of RQ that is told to stop by a signal, at the worst of times: in processes that may hang."""

import subprocess
import sys

import pytest

from worker.beating_worker import EXIT_STUCK

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

WORKER = """
import signal, sys, threading, time
from redis import Redis
from rq import Queue
from worker import beating_worker

beating_worker.STOP_LIMIT_S = float(sys.argv[2])
interrupted = threading.Event()
held = threading.Lock()

class Worker(beating_worker.BeatingWorker):
    def interrupt(self):
        with held:
            interrupted.set()

    def before_poll(self):
        with held, interrupted._cond:  # as a handler may find them
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        time.sleep(float(sys.argv[3]))

worker = Worker(Queue(connection=Redis.from_url(sys.argv[1]), serializer="json"), name="one")
worker.take_signals()
worker.work(logging_level="WARNING")
print(f"{interrupted.wait(5)} {worker.is_stopping}")
"""


def run(redis_url: str, *, limit_s: float, hangs_s: float) -> tuple[int, str]:
    """Exit code, and what it said."""
    command = [sys.executable, "-c", WORKER, redis_url, str(limit_s), str(hangs_s)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_signal_takes_no_lock_that_it_may_have_come_into(redis_url: str) -> None:
    assert run(redis_url, limit_s=10, hangs_s=0) == (0, "True True\n")


def test_a_worker_that_does_not_stop_is_ended(redis_url: str) -> None:
    code, said = run(redis_url, limit_s=0.5, hangs_s=20)

    assert code == EXIT_STUCK
    assert "worker is stuck" in said
