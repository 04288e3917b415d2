"""Child processes of the embedded stack: start, watch and end them; free ports; who a pid is."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TETHER = Path(__file__).with_name("tether.py")
_LOG_LIMIT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """A process written down so that a later start can find it. `identity` tells it from a reused pid."""

    name: str
    pid: int
    identity: str

    @classmethod
    def of(cls, name: str, pid: int) -> "ProcessRecord":
        return cls(name=name, pid=pid, identity=process_identity(pid) or "")

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return bool(self.identity) and process_identity(self.pid) == self.identity

    def end(self, grace_s: float) -> None:
        """End it: SIGTERM, then SIGKILL after `grace_s`. Does nothing to a process that is not this one."""
        for how in (signal.SIGTERM, signal.SIGKILL):
            if not self.is_alive():
                return
            try:
                os.kill(self.pid, how)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + grace_s
            while self.is_alive() and time.monotonic() < deadline:
                time.sleep(0.05)


class ChildProcess:
    """One process of the stack, in its own session, its output appended to a log file.

    Its own session keeps a Ctrl-C or SIGTERM to the supervisor's group away from it: the supervisor decides
    in which order things end. `death_signal` is what the kernel sends it if the supervisor is killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_path: Path,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.env = dict(env)
        self.cwd = cwd
        self.log_path = log_path
        self.death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        """Start, or start again after it ended."""
        _rotate(self.log_path)
        tether = [sys.executable, "-I", "-S", str(_TETHER), str(int(self.death_signal)), str(os.getpid())]
        with self.log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                [*tether, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
            )

    @property
    def record(self) -> ProcessRecord | None:
        """Who it is now; None before the first start."""
        return ProcessRecord.of(self.name, self._process.pid) if self._process else None

    def exit_code(self) -> int | None:
        """None while it runs or before it started."""
        return self._process.poll() if self._process else None

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def signal(self, how: signal.Signals) -> None:
        """Send a signal if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)

    def wait(self, deadline: float) -> bool:
        """Wait for its end until `deadline` (time.monotonic). Whether it has ended."""
        if self._process is None:
            return True
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def last_words(self) -> str:
        """The last error of this run's log, else its last line: JSON lines or plain text."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
        for line in reversed(lines):
            message = _error_of(line)
            if message:
                return message
        return lines[-1].strip() if lines else "it said nothing"


def process_identity(pid: int) -> str | None:
    """What tells this process from any other that had or will have its pid; None if there is none.

    Linux: boot id and start time in clock ticks; elsewhere the start time that `ps` gives.
    """
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        state, *fields = stat.rpartition(")")[2].split()
        return None if state == "Z" else f"{boot_id}:{fields[18]}"
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    started = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return started.stdout.strip() or None


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now; the caller tries another one if somebody takes it first."""
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def bind_error(host: str, port: int) -> str | None:
    """Why `host:port` cannot be listened on, None if it can."""
    try:
        with socket.socket(_family(host)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _error_of(line: str) -> str | None:
    """The message of a JSON log line of level ERROR or above."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    if not isinstance(entry, dict) or str(entry.get("level", "")).upper() not in {"ERROR", "CRITICAL"}:
        return None
    reason = entry.get("error") or entry.get("reason") or entry.get("detail")
    message = str(entry.get("message") or entry.get("event") or "error")
    return f"{message}: {reason}" if reason else message


def _rotate(log_path: Path) -> None:
    """Keep one earlier log, so that a long-lived data folder does not fill up."""
    if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
