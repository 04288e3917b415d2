"""`masan up` as a process of its own, in its own process group, on its own data folder."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

READY_TIMEOUT_S = 120.0


class RunningStack:
    """A started `masan up`; `stop` it, or leave it to the context manager."""

    def __init__(self, data_dir: Path, model: str, *args: str) -> None:
        self.data_dir = data_dir
        command = [
            sys.executable,
            "-m",
            "masan.cli",
            "up",
            "--data-dir",
            str(data_dir),
            "--model",
            model,
            *args,
        ]
        self.output = data_dir.with_suffix(".out")
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            self.url = self._wait_until_ready()
        except BaseException:
            self.process.kill()  # and the kernel its children
            raise

    def _wait_until_ready(self) -> str:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output.read_text()
            state = self.state()
            if state.get("supervisor", {}).get("pid") == self.process.pid and "Ready at" in self._last_run():
                return str(state["url"])
            time.sleep(0.1)
        raise AssertionError(f"not ready: {self.output.read_text()}")

    def _last_run(self) -> str:
        return self.output.read_text().rpartition("Waiting for")[2]

    def state(self) -> dict[str, Any]:
        """What the stack says of itself in its data folder."""
        try:
            state: dict[str, Any] = json.loads((self.data_dir / "run" / "stack.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def pid_of(self, name: str) -> int:
        return next(int(each["pid"]) for each in self.state()["processes"] if each["name"] == name)

    def signal_group(self, how: signal.Signals) -> None:
        os.killpg(self.process.pid, how)

    def __enter__(self) -> "RunningStack":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.signal_group(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


def processes_in(folder: Path) -> list[str]:
    """Command lines of all living processes whose working folder is `folder` or below it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            cwd = (entry / "cwd").readlink()
            command = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if cwd.is_relative_to(folder):
            found.append(f"{entry.name}: {command}")
    return found


def eventually(holds: Callable[[], bool], within_s: float) -> bool:
    """Whether it holds before the time is over."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def submit(http: httpx.Client, class_slug: str, n: int, **more: str | int | float) -> str:
    """POST /generate; returns the job's path."""
    response = http.post("/generate", params={"class": class_slug, "n": n, **more})
    assert response.status_code == httpx.codes.ACCEPTED, response.text
    return response.headers["Location"]


def wait_for(
    http: httpx.Client, job_path: str, reached: Callable[[dict[str, Any]], bool], within_s: float
) -> dict[str, Any]:
    """Poll the job until `reached`; the service may be away for a while."""
    deadline = time.monotonic() + within_s
    body: dict[str, Any] = {}
    while time.monotonic() < deadline:
        try:
            body = http.get(job_path).raise_for_status().json()
        except (httpx.TransportError, httpx.HTTPStatusError):
            pass
        else:
            if reached(body):
                return body
            assert body["status"] in {"queued", "running", "succeeded"}, body
        time.sleep(0.1)
    raise AssertionError(f"not reached in {within_s} s: {body}")


def wait_until_done(http: httpx.Client, job_path: str, within_s: float = 100.0) -> dict[str, Any]:
    return wait_for(http, job_path, lambda body: body["status"] == "succeeded", within_s)
