"""The data folder of an embedded stack: who has it, and what an earlier one left."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from masan.errors import PortTakenError, StackInUseError
from masan.local import EmbeddedStack, StackConfig, find_running
from masan.processes import ProcessRecord, free_port


def write_state(
    data_dir: Path, supervisor: ProcessRecord, *processes: ProcessRecord, url: str = "http://127.0.0.1:8123"
) -> None:
    (data_dir / "run").mkdir(parents=True, exist_ok=True)
    state = {
        "url": url,
        "supervisor": asdict(supervisor),
        "processes": [asdict(process) for process in processes],
    }
    (data_dir / "run" / "stack.json").write_text(json.dumps(state))


def test_a_relative_path_is_meant_from_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASAN_API_KEYS_FILE", "keys.jsonl")
    monkeypatch.setenv("MASAN_REPORT_DATA", "")

    env = EmbeddedStack(StackConfig(data_dir=tmp_path / "data"))._environment("redis://x")

    assert env["MASAN_API_KEYS_FILE"] == str(tmp_path / "keys.jsonl")
    assert env["MASAN_REPORT_DATA"] == ""


@pytest.mark.parametrize(
    ("field", "value"), [("workers", 0), ("workers", 100_000), ("port", 0), ("port", 65_536)]
)
def test_config_names_the_field_and_what_is_allowed(tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{field}: {value} is not in 1 to "):
        StackConfig(data_dir=tmp_path, **{field: value})  # type: ignore[arg-type]


def test_a_running_stack_is_found_by_its_supervisor(tmp_path: Path) -> None:
    write_state(tmp_path, ProcessRecord.of("masan", os.getpid()))

    running = find_running(tmp_path)

    assert running is not None
    assert running.url == "http://127.0.0.1:8123"


def test_a_reused_pid_is_no_running_stack(tmp_path: Path) -> None:
    write_state(tmp_path, ProcessRecord("masan", os.getpid(), "of an earlier process"))

    assert find_running(tmp_path) is None


@pytest.mark.parametrize(
    ("found", "command"),
    [(None, ["masan.webhook_worker"]), ("spec", ["masan.report_worker", "--webhooks"])],
)
def test_webhooks_are_delivered_with_and_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: object, command: list[str]
) -> None:
    stack = EmbeddedStack(StackConfig(data_dir=tmp_path, reports=True))
    added: list[list[str]] = []
    monkeypatch.setattr("masan.local.find_spec", lambda _: found)
    monkeypatch.setattr(stack._supervisor, "add", lambda child, **_: added.append(child.command))

    stack._start_reports({})

    assert [arguments[-len(command) :] for arguments in added] == [command]


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"url": "x"}'])
def test_an_unreadable_state_is_no_running_stack(tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text(content)

    assert find_running(tmp_path) is None


def test_a_locked_folder_says_who_has_it_and_where(tmp_path: Path) -> None:
    write_state(tmp_path, ProcessRecord.of("masan", os.getpid()))
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(StackInUseError, match=rf"process {os.getpid()} at http://127\.0\.0\.1:8123"):
            EmbeddedStack(StackConfig(data_dir=tmp_path)).start()

    assert find_running(tmp_path) is not None, "the other stack's state must stay"


def test_what_a_killed_stack_left_is_ended_and_nothing_else(tmp_path: Path) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    said: list[str] = []
    with subprocess.Popen(sleep) as leftover, subprocess.Popen(sleep) as stranger:
        write_state(
            tmp_path,
            ProcessRecord("masan", 1, "dead"),
            ProcessRecord.of("worker-1", leftover.pid),
            ProcessRecord("valkey", stranger.pid, "of an earlier process"),
        )
        taken = free_port()
        stack = EmbeddedStack(StackConfig(data_dir=tmp_path, host="192.0.2.1", port=taken), said.append)

        with pytest.raises(PortTakenError, match=f"--port {taken}: cannot listen on 192.0.2.1:{taken}"):
            stack.start()

        assert leftover.wait(5) == -signal.SIGTERM
        assert stranger.poll() is None
        stranger.kill()
    assert said == [f"Ending worker-1 (process {leftover.pid}), left behind by a stack that was killed"]


def test_the_data_folder_is_private(tmp_path: Path) -> None:
    stack = EmbeddedStack(StackConfig(data_dir=tmp_path / "data", host="192.0.2.1", port=free_port()))

    with pytest.raises(PortTakenError):
        stack.start()

    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in (tmp_path / "data").iterdir())
