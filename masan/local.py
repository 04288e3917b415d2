"""The embedded stack: Valkey, the service and its workers under one data folder, on this machine alone."""

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import httpx

from masan.errors import DataFolderError, PortTakenError, StackError, StackInUseError
from masan.processes import ChildProcess, ProcessRecord, bind_error, free_port
from masan.supervisor import Supervisor, describe_end
from masan.valkey_server import ValkeyServer, write_private

DEFAULT_PORT = 8000
DEFAULT_MODEL = "b-all@production"
_READY_TIMEOUT_S = 180.0
"""A cold worker imports torch and warms its model: seconds on an idle machine, a minute on a busy one."""
_STOP_WORK_S = 9.0
_STOP_VALKEY_S = 4.0
"""Together with one second each for the killed, under the 15 s that a stop may take."""
_PORT_ATTEMPTS = 3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MASAN_THREADS", "MASAN_ENCODE_THREADS")
_PATH_VARIABLES = ("MASAN_API_KEYS_FILE", "MASAN_REPORT_DATA", "MASAN_REPORT_CACHE")
"""Meant from where the user is; the processes run in the data folder."""
_TRAINING_MODULE = "cv2"
"""Of the extra `training` alone."""
_FOLDERS = ("valkey", "store", "results", "run", "logs")


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What an embedded stack is asked for. `port` None: 8000 if `prefer_default_port` and free, else any.

    reports: whether a process delivers webhooks too and, where training is installed, makes quality reports.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    prefer_default_port: bool = False
    workers: int = 1
    model: str = DEFAULT_MODEL
    reports: bool = False

    def __post_init__(self) -> None:
        cores = os.cpu_count() or 1
        if not 1 <= self.workers <= cores:
            raise ValueError(f"workers: {self.workers} is not in 1 to {cores}, the cores of this machine")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ValueError(f"port: {self.port} is not in 1 to 65535")


@dataclass(frozen=True)
class RunningStack:
    """What `{data_dir}/run/stack.json` says of a stack: where it listens and which processes it has."""

    url: str
    supervisor: ProcessRecord
    processes: tuple[ProcessRecord, ...]

    def wait_until_ready(self) -> None:
        """Wait while its service is still starting; what worker or drain keep from it, it says itself.

        Raises StackError if it ends or does not become ready.
        """
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while reason := not_ready_reason(self.url, scope="process"):
            if not self.supervisor.is_alive():
                raise StackError(f"the stack at {self.url} (process {self.supervisor.pid}) has ended")
            if time.monotonic() > deadline:
                raise StackError(f"the stack at {self.url} is not ready: {reason}")
            time.sleep(0.2)


class EmbeddedStack:
    """Starts and supervises the processes; a context manager that leaves none behind.

    `pick_port` proposes a free port of a host. `start` raises StackInUseError, PortTakenError,
    ValkeyMissingError or StackError.
    """

    def __init__(
        self,
        config: StackConfig,
        on_status: Callable[[str], None] = lambda _: None,
        pick_port: Callable[[str], int] = free_port,
    ) -> None:
        self.config = config
        self.data_dir = config.data_dir.expanduser().resolve()
        self._say = on_status
        self._pick_port = pick_port
        self._lock: IO[str] | None = None
        self._supervisor = Supervisor(on_change=self._write_state, say=on_status)
        self._valkey = ValkeyServer(self.data_dir)
        self._port = 0

    @property
    def url(self) -> str:
        """Base URL of the service, as seen from this machine."""
        wildcard = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
        host = wildcard.get(self.config.host, self.config.host)
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def check(self) -> None:
        """Raises StackError once supervision has given up on a process."""
        if self._supervisor.failure is not None:
            raise StackError(self._supervisor.failure)

    def __enter__(self) -> "EmbeddedStack":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait until a warm worker stands behind the service."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything: service and workers first, Valkey last. Safe to call twice."""
        valkey = self._valkey.process
        others = [child for child in self._supervisor.children if child is not valkey]
        self._supervisor.stop([(others, _STOP_WORK_S), ([valkey] if valkey else [], _STOP_VALKEY_S)])
        if self._lock is not None:
            _state_path(self.data_dir).unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _start(self) -> None:
        self._make_folders()
        self._lock = _lock_folder(self.data_dir)
        for record in _leftovers(self.data_dir):
            self._say(f"Ending {record.name} (process {record.pid}), left behind by a stack that was killed")
            record.end(grace_s=5.0)
        if self.config.port is not None:
            _refuse_taken_port(self.config.host, self.config.port)
        self._check_checkpoint()
        self._port = self._choose_port()
        self._say("Starting Valkey")
        self._supervisor.add(self._valkey.start())
        self._say("Starting the service and " + _count(self.config.workers, "worker"))
        env = self._environment(self._valkey.url)
        service = self._child("service", env | self._service_environment())
        self._supervisor.add(service)
        for number in range(1, self.config.workers + 1):
            self._supervisor.add(self._child(f"worker-{number}", env | self._worker_environment(), "worker"))
        if self.config.reports:
            self._start_reports(env)
        self._say("Waiting for a warm worker")
        self._wait_until_ready(service)
        self._supervisor.watch()

    def _start_reports(self, env: dict[str, str]) -> None:
        """The process that makes quality reports and delivers webhooks; without it, images are still made."""
        env = env | self._worker_environment()
        if find_spec(_TRAINING_MODULE) is None:
            self._say("No quality reports: that needs masan[training]")
            child = self._child("webhooks", env, "masan.webhook_worker")
        else:
            child = self._child("reports", env, "masan.report_worker", "--webhooks")
        self._supervisor.add(child, is_essential=False)

    def _make_folders(self) -> None:
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in _FOLDERS:
                (self.data_dir / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise DataFolderError(str(self.data_dir), error.strerror or str(error)) from error

    def _check_checkpoint(self) -> None:
        """Publish the built-in checkpoint, and make sure that the default model is there and undamaged."""
        from model_store.builtin import import_builtin
        from model_store.errors import ModelNotFoundError, ModelStoreError
        from model_store.store import ModelStore

        try:
            store = ModelStore(str(self.data_dir / "store"))
            try:
                import_builtin(store)
            except ModelNotFoundError:
                self._say("This build ships no checkpoint")
            checkpoint = store.resolve(self.config.model)
            store.read_file(checkpoint, checkpoint.manifest.weights.path)
        except ModelStoreError as error:
            raise StackError(f"{error} (store: {self.data_dir / 'store'})") from error

    def _choose_port(self) -> int:
        config = self.config
        if config.port is not None:
            return config.port
        if config.prefer_default_port and bind_error(config.host, DEFAULT_PORT) is None:
            return DEFAULT_PORT
        try:
            return self._pick_port(config.host)
        except OSError as error:
            raise StackError(f"--host {config.host}: {error.strerror or error}") from error

    def _environment(self, redis_url: str) -> dict[str, str]:
        """What all processes share; the rest of our environment goes on to them."""
        given = {name: Path(os.environ[name]) for name in _PATH_VARIABLES if os.environ.get(name)}
        paths = {name: str(path.expanduser().absolute()) for name, path in given.items()}
        return dict(os.environ) | {
            **paths,
            "MASAN_REDIS_URL": redis_url,
            "MASAN_MODEL_STORE_URL": str(self.data_dir / "store"),
            "MASAN_RESULT_STORE_URL": str(self.data_dir / "results"),
            "MASAN_DEFAULT_MODEL": self.config.model,
            "PYTHONUNBUFFERED": "1",
        }

    def _service_environment(self) -> dict[str, str]:
        return {
            "MASAN_HOST": self.config.host,
            "MASAN_PORT": str(self._port),
            "MASAN_SIGNING_KEY_FILE": str(self.data_dir / "signing_key.pem"),
        }

    def _worker_environment(self) -> dict[str, str]:
        """Each worker gets its share of the cores: more threads than cores make all of them slower."""
        from model_store.quality.parallel import available_cores

        share = str(max(1, available_cores() // self.config.workers))
        threads = {name: os.environ.get(name, share) for name in _THREAD_VARIABLES}
        return threads | {"MASAN_HOST": "127.0.0.1", "MASAN_METRICS_PORT": "0"}

    def _child(
        self, name: str, env: dict[str, str], module: str | None = None, *arguments: str
    ) -> ChildProcess:
        """`-P` and the working folder keep a folder named like our packages from shadowing them."""
        return ChildProcess(
            name,
            [sys.executable, "-P", "-m", module or name, *arguments],
            env=env,
            cwd=self.data_dir,
            log_path=self.data_dir / "logs" / f"{name}.log",
        )

    def _wait_until_ready(self, service: ChildProcess) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        attempts = 1
        reason: str | None = None
        while time.monotonic() < deadline:
            ended = self._supervisor.ended()
            if ended is service and self.config.port is None and attempts < _PORT_ATTEMPTS:
                if bind_error(self.config.host, self._port) is None:
                    raise StackError(describe_end(ended))
                attempts += 1
                self._port = self._pick_port(self.config.host)
                service.env |= self._service_environment()
                service.start()
                self._write_state()
            elif ended is not None:
                raise StackError(describe_end(ended))
            reason = not_ready_reason(self.url)
            if reason is None:
                return
            time.sleep(0.2)
        raise StackError(
            f"not ready after {_READY_TIMEOUT_S:.0f} s: {reason} (logs: {self.data_dir / 'logs'})"
        )

    def _write_state(self) -> None:
        records = [child.record for child in self._supervisor.children]
        state = {
            "url": self.url,
            "supervisor": asdict(ProcessRecord.of("masan", os.getpid())),
            "processes": [asdict(record) for record in records if record],
        }
        write_private(_state_path(self.data_dir), json.dumps(state, indent=2) + "\n")


def find_running(data_dir: Path) -> RunningStack | None:
    """The stack that runs on this data folder, if any."""
    state = _read_state(data_dir.expanduser().resolve())
    return state if state and state.supervisor.is_alive() else None


def not_ready_reason(url: str, scope: str = "fleet") -> str | None:
    """None when `/readyz` says yes, else what it says. scope: `process` leaves out workers and draining."""
    try:
        response = httpx.get(f"{url}/readyz", params={"scope": scope}, timeout=5.0, trust_env=False)
    except httpx.HTTPError as error:
        return f"no answer from {url}: {error}"
    if response.status_code == httpx.codes.OK:
        return None
    try:
        problem = response.json()
    except ValueError:
        return f"{url}/readyz answered {response.status_code}"
    return str(problem.get("detail") or problem.get("title") or problem)


def _lock_folder(data_dir: Path) -> IO[str]:
    """Hold the folder's lock until the returned file is closed; the kernel frees it if we die.

    Raises StackInUseError.
    """
    lock = (data_dir / "run" / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        running = find_running(data_dir)  # None while the other one is still preparing
        pid, url = (running.supervisor.pid, running.url) if running else (None, None)
        raise StackInUseError(str(data_dir), pid, url) from None
    return lock


def _leftovers(data_dir: Path) -> tuple[ProcessRecord, ...]:
    """Processes of an earlier stack that still run. Call with the lock held. Valkey comes last."""
    state = _read_state(data_dir)
    alive = [record for record in state.processes if record.is_alive()] if state else []
    return tuple(sorted(alive, key=lambda record: record.name == "valkey"))


def _read_state(data_dir: Path) -> RunningStack | None:
    try:
        state: dict[str, Any] = json.loads(_state_path(data_dir).read_text())
        return RunningStack(
            url=state["url"],
            supervisor=ProcessRecord(**state["supervisor"]),
            processes=tuple(ProcessRecord(**record) for record in state["processes"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state_path(data_dir: Path) -> Path:
    return data_dir / "run" / "stack.json"


def _refuse_taken_port(host: str, port: int) -> None:
    reason = bind_error(host, port)
    if reason:
        raise PortTakenError(host, port, reason)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
