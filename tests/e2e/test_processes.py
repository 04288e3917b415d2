"""Processes that end, die and come back."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import needs_own_stack
from tests.e2e.running_stack import (
    RunningStack,
    eventually,
    processes_in,
    submit,
    wait_for,
    wait_until_done,
)

pytestmark = [needs_own_stack, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

STOP_LIMIT_S = 15.0


def connect(stack: RunningStack) -> httpx.Client:
    return httpx.Client(base_url=stack.url, timeout=30, trust_env=False)


def begin_job(http: httpx.Client, n: int) -> str:
    """A job with some images done and more to come."""
    job_path = submit(http, "pro_b", n, seed=7)
    body = wait_for(http, job_path, lambda body: body["progress"]["done"] > 0, within_s=60)
    assert body["status"] == "running"
    return job_path


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_ends_everything_in_the_middle_of_a_job(
    tiny_data_dir: Path, how: signal.Signals
) -> None:
    with RunningStack(tiny_data_dir, "tiny@1") as stack, connect(stack) as http:
        begin_job(http, n=20_000)

        started = time.monotonic()
        stack.signal_group(how)
        code = stack.process.wait(STOP_LIMIT_S)

        assert time.monotonic() - started < STOP_LIMIT_S
        assert code == 0
        assert processes_in(tiny_data_dir) == []


def test_a_second_stack_on_the_same_folder_says_who_has_it(tiny_data_dir: Path) -> None:
    with RunningStack(tiny_data_dir, "tiny@1") as stack:
        second = subprocess.run(
            [sys.executable, "-m", "masan.cli", "up", "--data-dir", str(tiny_data_dir)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

        assert second.returncode == 2
        assert second.stderr == (
            f"masan: {tiny_data_dir} is in use by process {stack.process.pid} at {stack.url}\n"
        )
        assert httpx.get(f"{stack.url}/readyz", trust_env=False).status_code == 200


@pytest.mark.chaos
@pytest.mark.parametrize("killed", ["supervisor", "everything"])
def test_after_a_crash_the_next_start_goes_on_with_the_job(tiny_data_dir: Path, killed: str) -> None:
    with RunningStack(tiny_data_dir, "tiny@1") as stack, connect(stack) as http:
        job_path = begin_job(http, n=600)
        pids = [process["pid"] for process in stack.state()["processes"]]
        for pid in [stack.process.pid, *(pids if killed == "everything" else [])]:
            os.kill(pid, signal.SIGKILL)
        stack.process.wait(5)
        assert eventually(lambda: processes_in(tiny_data_dir) == [], within_s=10)

    with RunningStack(tiny_data_dir, "tiny@1") as stack, connect(stack) as http:
        job = wait_until_done(http, job_path)

        assert job["progress"]["done"] == 600
        assert http.get(job["links"]["result"]).status_code == 200


@pytest.mark.chaos
@pytest.mark.parametrize("name", ["worker-1", "service", "valkey"])
def test_a_killed_process_is_started_again_and_the_job_is_finished(tiny_data_dir: Path, name: str) -> None:
    with RunningStack(tiny_data_dir, "tiny@1") as stack, connect(stack) as http:
        job_path = begin_job(http, n=400)
        pid = stack.pid_of(name)

        os.kill(pid, signal.SIGKILL)

        job = wait_until_done(http, job_path)
        assert job["progress"]["done"] == 400
        assert eventually(lambda: stack.pid_of(name) != pid, within_s=20)
