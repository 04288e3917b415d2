"""Valkey with its append-only file, services and workers: processes that a test may kill or freeze."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
from redis import Redis
from redis.exceptions import RedisError

from masan.processes import ChildProcess, free_port
from masan.valkey_server import ValkeyServer
from model_store.store import ModelStore
from tests.checkpoints import publish_tiny
from worker.contract import keys
from worker.contract.messages import JobStatus

_T = TypeVar("_T")

RESOLUTION_PX = 64
MODEL = "tiny@production"


def eventually(look: Callable[[], _T | None], within_s: float = 60.0, *, every_s: float = 0.02) -> _T:
    """What `look` returns as soon as that is true. A backend that is away is asked again."""
    deadline = time.monotonic() + within_s
    found: object = None
    while time.monotonic() < deadline:
        try:
            if found := look():
                return found
        except (httpx.TransportError, RedisError) as error:
            found = error
        time.sleep(every_s)
    raise AssertionError(f"not within {within_s:g} s: {found!r}")


class Process:
    """One process of ours; its output goes to a file."""

    def __init__(self, module: str, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-m", module],
                env=os.environ | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def signal(self, how: signal.Signals) -> None:
        self._process.send_signal(how)

    def kill(self) -> None:
        """SIGKILL, and gone when this returns."""
        self._process.kill()
        self._process.wait(10)

    def terminate(self) -> None:
        """SIGTERM; it goes on until it has ended by itself."""
        self._process.terminate()

    def stop(self, within_s: float) -> tuple[int, float]:
        """SIGTERM. Exit code and seconds that it took."""
        began = time.monotonic()
        self.terminate()
        code = self._process.wait(within_s)
        return code, time.monotonic() - began

    def messages(self, text: str) -> list[dict[str, Any]]:
        """Its log lines with that message."""
        said = self.log.read_bytes()[self._log_start :].decode()
        lines = [
            line for line in said.splitlines(keepends=True) if line.startswith("{") and line.endswith("\n")
        ]
        return [entry for line in lines if (entry := json.loads(line)).get("message") == text]


class ServiceProcess(Process):
    """`python -m service` and a client of it."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str], port: int) -> None:
        super().__init__("service", name, folder, environment | {"MASAN_PORT": str(port)})
        self.port = port
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

    def is_up(self) -> bool:
        assert self.is_running, self.log.read_text()
        return self.http.get("/livez").status_code == httpx.codes.OK


class Stack:
    """All of one stack below `folder`: `valkey`, `store` and `results`, and a log for each process."""

    def __init__(self, folder: Path, *, results: Path | None = None) -> None:
        """results: where images go if not to a folder of that name."""
        self.folder = folder
        self.results = results or folder / "results"
        for path in (folder / "run", folder / "logs", folder / "store", self.results):
            path.mkdir(parents=True, exist_ok=True)
        self.store = ModelStore(str(folder / "store"))
        for version in ("1", "2"):
            publish_tiny(self.store, version=version, seed=int(version), resolution=RESOLUTION_PX)
        self.store.promote("tiny", "1")
        port = free_port()
        self.valkey = ValkeyServer(folder, pick_port=lambda: port)
        self.valkey_process: ChildProcess = self.valkey.start()
        self.redis: Redis = Redis.from_url(self.valkey.url, decode_responses=True, socket_timeout=5)
        self.processes: list[Process] = []
        self._serial = 0

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the stack is told."""
        return {
            "MASAN_REDIS_URL": self.valkey.url,
            "MASAN_MODEL_STORE_URL": self.store.url,
            "MASAN_RESULT_STORE_URL": str(self.results),
            "MASAN_DEFAULT_MODEL": MODEL,
            "MASAN_DEVICE": "cpu",
            "MASAN_THREADS": "1",
            "MASAN_ENCODE_THREADS": "1",
            "MASAN_SIGNING_KEY_FILE": str(self.folder / "run" / "signing_key.pem"),
            "OMP_NUM_THREADS": "1",
        }

    def start_service(self, *, port: int | None = None, **environment: str) -> ServiceProcess:
        """Returns when it answers. port: of a service that was killed, to take its place."""
        name = self._name("service")
        service = ServiceProcess(name, self.folder, self.environment | environment, port or free_port())
        self.processes.append(service)
        eventually(service.is_up)
        return service

    def start_worker(self, *, name: str | None = None, wait: bool = True, **environment: str) -> Process:
        """Returns when it can take chunks, unless told not to wait. name: of a killed one, in its place."""
        name = name or self._name("worker")
        own = {"MASAN_WORKER_NAME": name}
        worker = Process("worker", name, self.folder, self.environment | own | environment)
        self.processes.append(worker)
        if wait:
            eventually(lambda: self.is_ready(worker))
        return worker

    def is_ready(self, worker: Process) -> bool:
        assert worker.is_running, worker.log.read_text()
        return bool(worker.messages("worker ready"))

    def resume_valkey(self) -> None:
        """SIGCONT, and answering when this returns."""
        self.valkey_process.signal(signal.SIGCONT)
        eventually(self.redis.ping)

    def restart_valkey(self) -> None:
        """On the same port and files; what is in them is loaded when this returns."""
        self.valkey_process = self.valkey.start()

    def append_only_files(self) -> dict[Path, int]:
        """Valkey's increments, with their sizes in bytes now."""
        folder = self.folder / "valkey" / "appendonlydir"
        return {path: path.stat().st_size for path in folder.glob("*.incr.aof")}

    def done(self, job_id: str) -> int:
        """Images finished, as the ledger has it."""
        return int(self.redis.hget(keys.job_key(job_id), "done") or 0)

    def front(self) -> ServiceProcess:
        """A service that runs: the first of those there are, or a new one."""
        services = [each for each in self.processes if isinstance(each, ServiceProcess)]
        alive = [service for service in services if service.is_running]
        self.end(*(service for service in services if service not in alive[:1]))
        return alive[0] if alive else self.start_service()

    def crew(self, count: int) -> list[Process]:
        """That many warm workers and no others; those that run already stay."""
        workers = [each for each in self.processes if not isinstance(each, ServiceProcess)]
        alive = [worker for worker in workers if worker.is_running]
        self.end(*(worker for worker in workers if worker not in alive[:count]))
        started = [self.start_worker(wait=False) for _ in range(count - len(alive))]
        eventually(lambda: all(self.is_ready(worker) for worker in started))
        return alive[:count] + started

    def chunks_of(self, worker: Process) -> list[str]:
        """RQ ids of the chunks that a worker has in hand."""
        return [
            execution.partition(":")[0]
            for key in self.redis.scan_iter(f"rq:worker:{worker.name}.*:executions")
            for execution in cast("set[str]", self.redis.smembers(key))
        ]

    def freeze_in_chunk(self, worker: Process) -> tuple[str, str]:
        """SIGSTOP it while it has a chunk in hand; the chunk's job and index."""
        while True:
            eventually(lambda: self.chunks_of(worker))
            time.sleep(0.1)  # the more likely it draws
            worker.signal(signal.SIGSTOP)
            time.sleep(0.05)  # what it had sent before has been heard
            for chunk in self.chunks_of(worker):
                job_id, index, _ = chunk.rsplit("-", 2)
                if not self.is_done(job_id, index):
                    return job_id, index
            worker.signal(signal.SIGCONT)  # it was too fast

    def kill_in_chunk(self, worker: Process) -> tuple[str, str]:
        """SIGKILL it in the middle of a chunk; the chunk's job and index."""
        chunk = self.freeze_in_chunk(worker)
        worker.kill()
        return chunk

    def lose_waiting_chunks(self) -> list[tuple[str, str]]:
        """Take all chunks off the queue, as nothing else ever does; their jobs and indexes.

        Waits for one: a worker with room for more may just have taken the last.
        """
        lost: list[tuple[str, str]] = []

        def take_all() -> bool:
            while chunk := cast("str | None", self.redis.rpop(f"rq:queue:{keys.CHUNK_QUEUE}")):
                job_id, index, _ = chunk.rsplit("-", 2)
                lost.append((job_id, index))
            return bool(lost)

        eventually(take_all, every_s=0.001)
        return lost

    def is_done(self, job_id: str, index: str) -> bool:
        """Whether a chunk is marked done."""
        return bool(self.redis.hexists(keys.done_key(job_id), index))

    def _name(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}-{self._serial}"

    def end(self, *processes: Process) -> None:
        """Kill them for good; a killed worker's entry in the registry goes as well."""
        for process in processes:
            if process.is_running:
                process.kill()
            if isinstance(process, ServiceProcess):
                process.http.close()
            self.processes.remove(process)
            if process.name not in {other.name for other in self.processes}:
                self.redis.hdel(keys.WORKERS, process.name)

    def close(self) -> None:
        """End everything that was started."""
        self.redis.close()
        for process in self.processes:
            process.kill()
            if isinstance(process, ServiceProcess):
                process.http.close()
        self.valkey_process.signal(signal.SIGCONT)
        self.valkey_process.signal(signal.SIGKILL)
        self.valkey_process.wait(time.monotonic() + 10)


def submit(http: httpx.Client, n: int, class_slug: str = "pro_b", seed: int = 7, **more: str | float) -> str:
    """POST /generate; returns the job's id."""
    parameters: dict[str, str | float] = {"class": class_slug, "n": n, "seed": seed, **more}
    response = http.post("/generate", params=parameters)
    assert response.status_code == httpx.codes.ACCEPTED, response.text
    return str(response.json()["id"])


def job(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job's body. Raises TransportError while the service is away."""
    response = http.get(f"/jobs/{job_id}")
    if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        raise httpx.ReadError(response.text)
    assert response.status_code == httpx.codes.OK, response.text
    body: dict[str, Any] = response.json()
    return body


def done(http: httpx.Client, job_id: str) -> int:
    """Images finished."""
    return int(job(http, job_id)["progress"]["done"])


def wait_until_final(http: httpx.Client, job_id: str, within_s: float = 90.0) -> dict[str, Any]:
    """The body once the job has ended, however it did."""

    def look() -> dict[str, Any] | None:
        body = job(http, job_id)
        return body if JobStatus(body["status"]).is_final else None

    return eventually(look, within_s, every_s=0.1)


def wait_until_succeeded(http: httpx.Client, job_id: str, within_s: float = 90.0) -> dict[str, Any]:
    body = wait_until_final(http, job_id, within_s)
    assert body["status"] == JobStatus.SUCCEEDED, body
    return body


def download(http: httpx.Client, job_id: str) -> bytes:
    """The whole archive."""
    return http.get(f"/jobs/{job_id}/result").raise_for_status().content


def digests(archive: bytes) -> dict[str, str]:
    """sha256 of each image by its id, as the bytes in the archive give it; each is there once.

    The manifest must name the same.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        rows = [json.loads(line) for line in files.read("manifest.jsonl").splitlines()]
        names = [name for name in files.namelist() if name.endswith(".png")]
        found = {row["image_id"]: hashlib.sha256(files.read(row["file"])).hexdigest() for row in rows}
    assert len(found) == len(rows) == len(names) == len(set(names))
    assert found == {row["image_id"]: row["sha256"] for row in rows}
    return found
