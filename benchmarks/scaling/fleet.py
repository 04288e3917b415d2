"""A private Valkey, the real service process, and as many workers with the stand-in as are asked for."""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
from redis import Redis

from masan.processes import ChildProcess, free_port
from masan.valkey_server import ValkeyServer
from model_store.builtin import import_builtin
from model_store.store import ModelStore
from service.jobs.workers import live_workers
from worker.contract import keys

MODEL = "b-all@production"
CLASS = "pro_b"
_READY_S = 60.0
_STOP_S = 15.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
FORK = multiprocessing.get_context("forkserver")
"""Torch is imported once, before any of its threads is started; workers are forked from there."""
FORK.set_forkserver_preload(["worker.process"])


@dataclass(frozen=True, slots=True)
class Rate:
    """A fleet at work. cpu_ms: of an image. busy: share of the machine's cores, whoever used them.

    connections: to Valkey.
    """

    workers: int
    images: int
    seconds: float
    chunk_images: int
    cpu_ms: Mapping[str, float]
    busy: float
    connections: int

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds


class Fleet:
    """Begins without a worker. Everything lies below `folder`."""

    def __init__(self, folder: Path, valkey: ValkeyServer, port: int) -> None:
        self.folder = folder
        self.valkey_url = valkey.url
        self.redis: Redis = Redis.from_url(valkey.url, decode_responses=True)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90, trust_env=False)
        self.workers: list[Any] = []
        self.service: ChildProcess | None = None
        self.pids = {"valkey": int(self.redis.info("server")["process_id"])}

    def add_workers(self, count: int, pictures: Path, images_per_second: float) -> None:
        """Start so many more; back once all are warm."""
        from scaling.paced import work

        for number in range(len(self.workers) + 1, len(self.workers) + count + 1):
            log = str(self.folder / "logs" / f"worker-{number}.log")
            settings = self.worker_settings(f"w{number}")
            arguments = (settings, str(pictures), images_per_second, log)
            process = FORK.Process(target=work, args=arguments, daemon=True)
            process.start()
            self.workers.append(process)
        deadline = time.monotonic() + _READY_S
        while sum(worker.is_warm and worker.state == "idle" for worker in self.live()) < len(self.workers):
            if time.monotonic() > deadline or not all(worker.is_alive() for worker in self.workers):
                raise RuntimeError(f"workers are not ready; see {self.folder / 'logs'}")
            time.sleep(0.1)

    def worker_settings(self, name: str) -> dict[str, Any]:
        """Of a worker that runs one forward pass at a time, as one with a GPU does."""
        return {
            "redis_url": self.valkey_url,
            "model_store_url": str(self.folder / "store"),
            "result_store_url": str(self.folder / "results"),
            "worker_name": name,
            "device": "cpu",
            "threads": 1,
            "encode_threads": 1,
        }

    def live(self) -> list[Any]:
        """Workers as the service sees them."""
        return list(live_workers(self.redis, time.time()))

    def measure(self, n: int, gate: str, seed: int) -> Rate:
        """Run one job of `n` images, which have to be several chunks for each worker.

        The rate is that of the time in which all workers were at it: first and last chunks are left out.
        """
        count = len(self.workers)
        cpu, machine = self._cpu_seconds(), _machine_seconds()
        job_id = self.submit(n, gate=gate, seed=seed)
        self.wait(job_id)
        spent = {name: value - cpu[name] for name, value in self._cpu_seconds().items()}
        busy, total = (after - before for after, before in zip(_machine_seconds(), machine, strict=True))
        done = self._chunks_done(job_id)
        if len(done) <= 2 * count:
            raise RuntimeError(f"{n} images are {len(done)} chunks, too few for {count} workers")
        return Rate(
            workers=count,
            images=sum(images for _, images in done[count:-count]),
            seconds=done[-count - 1][0] - done[count - 1][0],
            chunk_images=max(images for _, images in done),
            cpu_ms={name: 1e3 * seconds / n for name, seconds in spent.items()},
            busy=busy / total,
            connections=int(self.redis.info("clients")["connected_clients"]),
        )

    def submit(self, n: int, **more: str | int) -> str:
        """POST /generate; the job's id."""
        asked: dict[str, str | int] = {"class": CLASS, "n": n, **more}
        answer = self.http.post("/generate", params=asked)
        if answer.status_code != httpx.codes.ACCEPTED:
            raise RuntimeError(f"the service answered {answer.status_code}: {answer.text}")
        return str(answer.json()["id"])

    def wait(self, job_id: str) -> None:
        """Until it has succeeded."""
        while True:
            body = self.http.get(f"/jobs/{job_id}", headers={"Prefer": "wait=30"}).raise_for_status().json()
            if body["status"] == "succeeded":
                return
            if body["finished_at"]:
                raise RuntimeError(f"job {job_id} {body['status']}: {body.get('error')}")

    def _chunks_done(self, job_id: str) -> list[tuple[float, int]]:
        """(when, images) of each finished chunk, by the job's events."""
        events = cast("list[tuple[str, dict[str, str]]]", self.redis.xrange(keys.events_key(job_id)))
        return [
            (int(event_id.partition("-")[0]) / 1e3, int(json.loads(entry["data"])["count"]))
            for event_id, entry in events
            if entry["event"] == "shard"
        ]

    def stop_workers(self) -> None:
        """End them and wait for it."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.join(_STOP_S)
            if worker.is_alive():
                worker.kill()
        self.workers = []

    def stop_service(self) -> None:
        """End it, so that Valkey hears from nobody but who is measured."""
        if self.service is not None:
            _end(self.service)

    def close(self) -> None:
        """End the workers, the service and the connections."""
        self.stop_workers()
        self.stop_service()
        self.http.close()
        self.redis.close()

    def _cpu_seconds(self) -> dict[str, float]:
        """Used by now."""
        spent = {name: _cpu_seconds(pid) for name, pid in self.pids.items()}
        return spent | {"workers": sum(_cpu_seconds(worker.pid) for worker in self.workers)}


@contextmanager
def running_fleet(folder: Path) -> Iterator[Fleet]:
    """Valkey with its append-only file and one service; all is ended afterwards, added workers too."""
    for name in ("run", "logs", "store", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    import_builtin(ModelStore(str(folder / "store")))
    valkey, port = ValkeyServer(folder), free_port("127.0.0.1")
    server = valkey.start()
    fleet = Fleet(folder, valkey, port)
    try:
        fleet.service = _service(folder, valkey.url, port)
        fleet.service.start()
        deadline = time.monotonic() + _READY_S
        while not _answers(fleet.http):
            if time.monotonic() > deadline or not fleet.service.is_running():
                raise RuntimeError(f"the service is not ready: {fleet.service.last_words()}")
            time.sleep(0.1)
        record = fleet.service.record
        if record is not None:
            fleet.pids["service"] = record.pid
        yield fleet
    finally:
        fleet.close()
        _end(server)


def _end(child: ChildProcess) -> None:
    child.signal(signal.SIGTERM)
    if not child.wait(time.monotonic() + _STOP_S):
        child.signal(signal.SIGKILL)


def _service(folder: Path, valkey_url: str, port: int) -> ChildProcess:
    variables = {
        "MASAN_REDIS_URL": valkey_url,
        "MASAN_MODEL_STORE_URL": str(folder / "store"),
        "MASAN_RESULT_STORE_URL": str(folder / "results"),
        "MASAN_DEFAULT_MODEL": MODEL,
        "MASAN_PORT": str(port),
        "MASAN_SIGNING_KEY_FILE": str(folder / "signing_key.pem"),
        "MASAN_LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "-P", "-m", "service"]
    log = folder / "logs" / "service.log"
    return ChildProcess("service", command, env=os.environ | variables, cwd=folder, log_path=log)


def _answers(http: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return http.get("/livez").status_code == httpx.codes.OK
    return False


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _machine_seconds() -> tuple[float, float]:
    """Seconds that the cores were busy, and seconds in all, since the machine started."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / _TICKS_PER_S, sum(ticks) / _TICKS_PER_S
