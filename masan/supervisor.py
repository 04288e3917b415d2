"""Keeps a set of child processes running and ends them in order."""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from masan.processes import ChildProcess

_POLL_S = 0.2
_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 10.0
_MAX_FAILURES = 6
"""Ends in a row, each soon after the start, before the supervisor gives up: half a minute of trying."""
_HEALTHY_AFTER_S = 30.0
"""A child that ran this long is not failing at start; its next end counts as the first again."""


@dataclass(slots=True)
class _Watched:
    child: ChildProcess
    started_at: float
    is_essential: bool = True
    failures: int = 0
    restart_at: float | None = None
    is_given_up: bool = False


class Supervisor:
    """Restarts what ends by itself, with growing pauses; gives up on what cannot stay up.

    With an essential child it gives up on all of them, else on that child alone.

    `on_change` is called after every start, so that the pids can be written down; `say` gets a line about
    whatever a person at the terminal should know.
    """

    def __init__(self, on_change: Callable[[], None], say: Callable[[str], None]) -> None:
        self._on_change = on_change
        self._say = say
        self._watched: list[_Watched] = []
        self._stopping = threading.Event()
        self._at_rest = threading.Event()
        self._all_ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        """Why it gave up; None while all is well."""

    @property
    def children(self) -> tuple[ChildProcess, ...]:
        return tuple(watched.child for watched in self._watched)

    def add(self, child: ChildProcess, *, is_essential: bool = True) -> None:
        """Start a child, unless it runs already, and look after it from `watch` on."""
        if not child.is_running():
            child.start()
        self._watched.append(_Watched(child, started_at=time.monotonic(), is_essential=is_essential))
        self._on_change()

    def ended(self) -> ChildProcess | None:
        """The first essential child that does not run now."""
        essential = (watched.child for watched in self._watched if watched.is_essential)
        return next((child for child in essential if not child.is_running()), None)

    def watch(self) -> None:
        """Begin to restart children that end."""
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    def stop(self, groups: Sequence[tuple[Sequence[ChildProcess], float]]) -> None:
        """End all children: one group after the other, each given its grace in seconds, then killed."""
        self._stopping.set()
        if self._thread is not None:
            self._at_rest.wait()
        for children, grace_s in groups:
            for child in children:
                child.signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            for child in children:
                if not child.wait(deadline):
                    self._say(f"Killing {child.name}, which did not end within {grace_s:.1f} s")
                    child.signal(signal.SIGKILL)
                    child.wait(time.monotonic() + 1.0)
        self._all_ended.set()

    def _run(self) -> None:
        """To Linux, the thread that starts a child is its parent: it outlives those that it started again."""
        try:
            while self.failure is None and not self._stopping.wait(_POLL_S):
                for watched in self._watched:
                    self._look_after(watched, time.monotonic())
        except OSError as error:  # of a start, a log or `on_change`: from here on nothing is looked after
            self.failure = f"the processes can no longer be supervised: {error}"
        finally:
            self._at_rest.set()
            self._all_ended.wait()

    def _look_after(self, watched: _Watched, now: float) -> None:
        child = watched.child
        if watched.is_given_up or child.is_running():
            return
        if watched.restart_at is None:
            self._note_end(watched, now)
        elif now >= watched.restart_at:
            child.start()
            watched.started_at, watched.restart_at = now, None
            self._on_change()

    def _note_end(self, watched: _Watched, now: float) -> None:
        child = watched.child
        healthy = now - watched.started_at > _HEALTHY_AFTER_S
        watched.failures = 1 if healthy else watched.failures + 1
        if watched.failures >= _MAX_FAILURES:
            self._give_up(watched)
            return
        pause_s = min(_FIRST_BACKOFF_S * 2 ** (watched.failures - 1), _MAX_BACKOFF_S)
        watched.restart_at = now + pause_s
        self._say(f"{describe_end(child)}; starting it again in {pause_s:.1f} s")

    def _give_up(self, watched: _Watched) -> None:
        if watched.is_essential:
            self.failure = describe_end(watched.child)
            return
        watched.is_given_up = True
        self._say(f"{describe_end(watched.child)}; going on without it")


def describe_end(child: ChildProcess) -> str:
    """One line: who ended, how, its last words and where its log is."""
    code = child.exit_code()
    how = signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"
    return f"{child.name} ended ({how}): {child.last_words()} (log: {child.log_path})"
