"""What benchmarks of the served path share: a whole stack of processes, and the bare generator beside it.

Valkey with its append-only file, one `python -m service`, one `python -m worker`, all below a folder of their
own; and the rate at which the worker's threads draw images when nothing else is asked of them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from fresh_checkpoint import publish_fresh
from masan.processes import free_port
from masan.valkey_server import ValkeyServer
from model_store.builtin import import_builtin
from model_store.image_id import ImageId
from model_store.sampling import make_reproducible, sample_micro_batch
from model_store.store import Checkpoint, ModelStore
from worker.contract.messages import ModelRef
from worker.process import WorkerProcess
from worker.settings import WorkerSettings

FULL_WIDTH = 32
_READY_S = 120.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def checkpoint_of(store: ModelStore, model: str) -> Checkpoint:
    """`builtin`: the shipped one; `fresh` or `fresh:CHANNELS`: fresh weights of that width."""
    name, _, width = model.partition(":")
    if name == "builtin":
        import_builtin(store)
        return store.resolve("b-all@production")
    return publish_fresh(store, int(width or FULL_WIDTH))


@dataclass
class Usage:
    """What a process has used by now. rss_bytes: resident."""

    cpu_seconds: float
    rss_bytes: int

    @classmethod
    def of(cls, pid: int) -> "Usage":
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return cls(ticks / _TICKS_PER_S, pages * os.sysconf("SC_PAGE_SIZE"))


@dataclass
class ServingStack:
    """A stack that is ready; see `serving_stack`."""

    folder: Path
    http: httpx.Client
    redis: "Redis"
    redis_url: str
    checkpoint: Checkpoint
    threads: int
    environment: dict[str, str]
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """As a request names it."""
        return self.checkpoint.reference

    def submit(self, n: int, class_slug: str, **more: Any) -> str:
        """POST /generate; the job's id."""
        asked = {"class": class_slug, "n": n, "model": self.model, **more}
        answer = self.http.post("/generate", params=asked).raise_for_status()
        return str(answer.json()["id"])

    def wait(self, job_id: str) -> dict[str, Any]:
        """The body of a job that has succeeded, as soon as it has."""
        while True:
            answer = self.http.get(f"/jobs/{job_id}", headers={"Prefer": "wait=30"}).raise_for_status()
            body: dict[str, Any] = answer.json()
            if body["status"] == "succeeded":
                return body
            if body["finished_at"]:
                raise RuntimeError(f"job {job_id} {body['status']}: {body}")

    def download(self, job_id: str) -> int:
        """Read the archive to its last byte; its length."""
        with self.http.stream("GET", f"/jobs/{job_id}/result") as answer:
            answer.raise_for_status()
            return sum(len(block) for block in answer.iter_raw())

    def usage(self, name: str) -> Usage:
        """name: service, worker or valkey."""
        return Usage.of(self.pids[name])

    def bare_generator(self) -> "BareGenerator":
        """The worker's generator, in this process."""
        settings = WorkerSettings(
            redis_url=self.redis_url.replace("/0", "/1"),  # it must not show among the stack's workers
            model_store_url=self.environment["MASAN_MODEL_STORE_URL"],
            result_store_url=self.environment["MASAN_RESULT_STORE_URL"],
            device=self.environment["MASAN_DEVICE"],
            threads=self.threads,
            encode_threads=1,
        )
        return BareGenerator(WorkerProcess(settings), self.checkpoint, self.threads)


class BareGenerator:
    """Forward passes and nothing else, on as many threads as a worker has."""

    def __init__(self, process: WorkerProcess, checkpoint: Checkpoint, threads: int) -> None:
        make_reproducible()
        manifest = checkpoint.manifest
        model = ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)
        self._generator = process.cache.get(model).generator
        self._digest = checkpoint.digest
        self._slug = manifest.classes[0]
        self._threads = threads
        self.micro_batch = process.sampler.micro_batch
        process.sampler.close()

    def images_per_second(self, seconds: float) -> tuple[float, float]:
        """Drawn by all threads together, each until its first pass that ends after `seconds`; and CPU seconds
        of an image."""
        rates: list[float] = []
        counts: list[int] = []
        cpu = time.process_time()

        def draw() -> None:
            count, started = 0, time.monotonic()
            while (elapsed := time.monotonic() - started) < seconds or not count:
                ids = [ImageId(self._digest[:16], self._slug, 1, count + i) for i in range(self.micro_batch)]
                labels = [0] * len(ids)
                sample_micro_batch(self._generator, self._digest, ids, labels, micro_batch=self.micro_batch)
                count += len(ids)
            rates.append(count / elapsed)
            counts.append(count)

        threads = [threading.Thread(target=draw) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(rates), (time.process_time() - cpu) / sum(counts)


@contextmanager
def serving_stack(
    folder: Path, model: str, *, threads: int, device: str = "cpu", **environment: str
) -> Iterator[ServingStack]:
    """A stack of one service and one worker, warm; ended afterwards. model: see `checkpoint_of`."""
    for name in ("run", "logs", "store", "results"):
        (folder / name).mkdir(parents=True)
    store = ModelStore(str(folder / "store"))
    checkpoint = checkpoint_of(store, model)
    with ExitStack() as opened:
        valkey = ValkeyServer(folder)
        child = valkey.start()
        opened.callback(child.wait, time.monotonic() + 600)
        opened.callback(child.signal, signal.SIGTERM)
        port = free_port()
        variables = {
            "MASAN_REDIS_URL": valkey.url,
            "MASAN_MODEL_STORE_URL": store.url,
            "MASAN_RESULT_STORE_URL": str(folder / "results"),
            "MASAN_DEFAULT_MODEL": checkpoint.reference,
            "MASAN_DEVICE": device,
            "MASAN_THREADS": str(threads),
            "MASAN_ENCODE_THREADS": str(threads),
            "MASAN_PORT": str(port),
            "MASAN_LOG_LEVEL": "WARNING",
            "MASAN_SIGNING_KEY_FILE": str(folder / "run" / "signing_key.pem"),
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        redis: Redis = opened.enter_context(Redis.from_url(valkey.url, decode_responses=True))
        http = opened.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90, trust_env=False)
        )
        stack = ServingStack(folder, http, redis, valkey.url, checkpoint, threads, variables)
        stack.pids["valkey"] = int(redis.info("server")["process_id"])
        for module in ("service", "worker"):
            stack.pids[module] = opened.enter_context(_running(module, folder, variables)).pid
        _wait_until_ready(http)
        yield stack


@contextmanager
def _running(module: str, folder: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "logs" / f"{module}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", module], env=os.environ | variables, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


def _wait_until_ready(http: httpx.Client) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if http.get("/readyz").status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise TimeoutError(f"the stack was not ready after {_READY_S:g} s")
