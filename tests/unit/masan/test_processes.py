"""Children die with their parent, and nobody else's process is ever ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from masan.processes import ChildProcess, ProcessRecord, bind_error, free_port, process_identity

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def child(tmp_path: Path, code: str) -> ChildProcess:
    return ChildProcess(
        "child",
        [sys.executable, "-c", code],
        env=dict(os.environ),
        cwd=tmp_path,
        log_path=tmp_path / "child.log",
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
def test_a_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    parent_code = f"""
import os, sys, time
from pathlib import Path
from masan.processes import ChildProcess
folder = Path({str(tmp_path)!r})
child = ChildProcess("child", {SLEEP!r}, env=dict(os.environ), cwd=folder, log_path=folder / "child.log")
child.start()
print(child.record.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", parent_code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert process_identity(pid) is not None

        parent.send_signal(signal.SIGKILL)

        assert eventually(lambda: process_identity(pid) is None)


def test_a_child_does_not_get_the_signals_of_our_group(tmp_path: Path) -> None:
    sleeper = child(tmp_path, "import time; time.sleep(60)")
    sleeper.start()
    record = sleeper.record

    assert record is not None
    assert os.getpgid(record.pid) == record.pid

    sleeper.signal(signal.SIGKILL)
    assert sleeper.wait(time.monotonic() + 5)


def test_a_record_ends_its_own_process_only() -> None:
    with subprocess.Popen(SLEEP) as stranger:
        reused = ProcessRecord(name="old", pid=stranger.pid, identity="of an earlier process")

        reused.end(grace_s=0.1)

        assert stranger.poll() is None
        ProcessRecord.of("sleeper", stranger.pid).end(grace_s=5)
        assert stranger.wait(5) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print('starting'); print('the reason')", "the reason"),
        (
            """print('{"level": "ERROR", "message": "no start", "error": "no checkpoint"}'); print('bye')""",
            "no start: no checkpoint",
        ),
        ("pass", "it said nothing"),
    ],
)
def test_last_words_are_the_last_error_or_line_of_this_run(tmp_path: Path, code: str, expected: str) -> None:
    (tmp_path / "child.log").write_text("an earlier run\n")
    speaker = child(tmp_path, code)
    speaker.start()
    assert speaker.wait(time.monotonic() + 10)

    assert speaker.last_words() == expected


def test_a_taken_port_is_named_as_such() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        assert bind_error("127.0.0.1", listener.getsockname()[1]) == "Address already in use"


def test_a_free_port_can_be_bound() -> None:
    assert bind_error("127.0.0.1", free_port()) is None
