"""What ends is started again, within bounds, and everything ends in order."""

import errno
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import masan.supervisor
from masan.processes import ChildProcess
from masan.supervisor import Supervisor

POLITE = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0))); "
    "print('up'); time.sleep(60)"
)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(60)"


def child(tmp_path: Path, code: str, name: str = "child") -> ChildProcess:
    return ChildProcess(
        name,
        [sys.executable, "-u", "-c", code],
        env=dict(os.environ),
        cwd=tmp_path,
        log_path=tmp_path / f"{name}.log",
    )


def wait_until_said(log_path: Path, text: str) -> None:
    deadline = time.monotonic() + 10
    while text not in log_path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_child_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    starts: list[int] = []
    sleeper = child(tmp_path, "import time; print('up'); time.sleep(60)")
    supervisor = Supervisor(
        on_change=lambda: starts.append(sleeper.record.pid if sleeper.record else 0), say=said.append
    )
    supervisor.add(sleeper)
    supervisor.watch()

    os.kill(starts[0], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while len(starts) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    running = sleeper.is_running()
    supervisor.stop([([sleeper], 5)])

    assert running
    assert len(set(starts)) == 2
    assert supervisor.failure is None
    assert "child ended (SIGKILL)" in said[0]


def test_a_child_that_was_started_again_ends_in_its_turn_too(tmp_path: Path) -> None:
    """Whoever started it must not end before it: the kernel would take it for an orphan, and kill it."""
    said: list[str] = []
    starts: list[int] = []
    polite, stubborn = child(tmp_path, POLITE, "polite"), child(tmp_path, STUBBORN, "stubborn")
    supervisor = Supervisor(
        on_change=lambda: starts.append(polite.record.pid if polite.record else 0), say=said.append
    )
    supervisor.add(polite)
    wait_until_said(polite.log_path, "up")
    supervisor.watch()
    os.kill(starts[0], signal.SIGKILL)
    wait_until_said(polite.log_path, "up\nup")
    supervisor.add(stubborn)
    wait_until_said(stubborn.log_path, "up")

    supervisor.stop([([stubborn], 0.3), ([polite], 5)])

    assert said[1:] == ["Killing stubborn, which did not end within 0.3 s"]
    assert polite.exit_code() == 0
    assert polite.log_path.read_text().endswith("bye\n")


def test_says_that_it_cannot_go_on(tmp_path: Path) -> None:
    """Else a disk that is full would end the supervision, and nobody would know."""
    sleeper = child(tmp_path, "import time; time.sleep(60)")
    changes: list[str] = []

    def note() -> None:
        if changes:
            raise OSError(errno.ENOSPC, "No space left on device")
        changes.append("started")

    supervisor = Supervisor(on_change=note, say=lambda _: None)
    supervisor.add(sleeper)
    supervisor.watch()
    sleeper.signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while supervisor.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)
    supervisor.stop([([sleeper], 5)])

    assert supervisor.failure is not None
    assert "No space left on device" in supervisor.failure
    assert not sleeper.is_running()


def test_gives_up_on_what_cannot_stay_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masan.supervisor, "_FIRST_BACKOFF_S", 0.01)
    said: list[str] = []
    broken = child(tmp_path, "import sys; sys.exit('no checkpoint')")
    supervisor = Supervisor(on_change=lambda: None, say=said.append)
    supervisor.add(broken)
    supervisor.watch()

    deadline = time.monotonic() + 20
    while supervisor.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)
    supervisor.stop([([broken], 1)])

    assert supervisor.failure is not None
    assert supervisor.failure.startswith("child ended (exit code 1): no checkpoint")


def test_groups_end_one_after_the_other_and_the_stubborn_are_killed(tmp_path: Path) -> None:
    said: list[str] = []
    polite = child(tmp_path, POLITE, "polite")
    stubborn = child(tmp_path, STUBBORN, "stubborn")
    supervisor = Supervisor(on_change=lambda: None, say=said.append)
    for each in (polite, stubborn):
        supervisor.add(each)
        wait_until_said(each.log_path, "up")

    supervisor.stop([([stubborn], 0.3), ([polite], 5)])

    assert said == ["Killing stubborn, which did not end within 0.3 s"]
    assert (stubborn.exit_code(), polite.exit_code()) == (-signal.SIGKILL, 0)


def test_goes_on_without_what_is_not_essential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masan.supervisor, "_FIRST_BACKOFF_S", 0.01)
    said: list[str] = []
    broken = child(tmp_path, "import sys; sys.exit('no dataset')", "reports")
    supervisor = Supervisor(on_change=lambda: None, say=said.append)
    supervisor.add(broken, is_essential=False)
    supervisor.watch()

    deadline = time.monotonic() + 20
    while "going on without it" not in "".join(said) and time.monotonic() < deadline:
        time.sleep(0.05)
    ended = supervisor.ended()
    supervisor.stop([([broken], 1)])

    assert said[-1].startswith("reports ended (exit code 1): no dataset")
    assert said[-1].endswith("going on without it")
    assert (supervisor.failure, ended) == (None, None)
