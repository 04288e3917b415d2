"""How fast one service process answers: jobs accepted, jobs looked at, events sent on, results downloaded.

    python benchmarks/api.py                                   # everything, about a minute and a half
    python benchmarks/api.py --only post get --seconds 8

A real service process, a real Valkey and `wrk` share this machine and its loopback. A worker is registered
and kept alive that takes nothing, so that each accepted job is written and enqueued for good and waits. The
yardstick is a bare FastAPI endpoint, in a process of its own on the same server, that makes one round trip to
Redis; both are measured in turns, many short ones, and the median counts. Each connection asks again when it
is answered, so that its time is at least the number of connections over the rate: 16 of them show the tail of
a service that is full, 64 mostly the line in front of it. Downloads are held against nginx, which sends
the same bytes from a file by sendfile. CPU seconds are those of the process that answers.
"""

import argparse
import asyncio
import gc
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from api_stack import SLUG, Bench, Server, finished_job, nginx_serving
from hardware import hardware_line
from worker.contract import keys

BLOCK = 1 << 20
_WRK_SUMMARY = """
wrk.method = "%s"
done = function(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout
  local form = '{"requests": %%d, "seconds": %%.6f, "p50_ms": %%.3f, "p99_ms": %%.3f, "failed": %%d}'
  io.write(form:format(summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, failed))
end
"""


@dataclass(frozen=True)
class Load:
    """What a load generator saw; cpu_s: what that cost the process which answered."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us_each(self) -> float:
        return self.cpu_s / self.requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast one service process answers.")
    parser.add_argument("--only", nargs="+", choices=["post", "get", "events", "download"])
    parser.add_argument("--seconds", type=int, default=2, help="of each round of requests; of many, more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--connections", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--clients", type=int, default=200, help="of one job's events")
    parser.add_argument("--images", type=int, default=1_000, help="in the archive that is downloaded")
    parser.add_argument("--bare", metavar="REDIS_URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        serve_bare(arguments.bare)
        return
    wanted = arguments.only or ["post", "get", "events", "download"]
    print(hardware_line())
    with Bench(__file__) as bench:
        for connections in arguments.connections:
            if "post" in wanted:
                measure_posts(bench, connections, arguments)
        if "get" in wanted:
            measure_gets(bench, arguments.connections[0], arguments)
        if "events" in wanted:
            asyncio.run(measure_events(bench, arguments.clients))
        if "download" in wanted:
            measure_downloads(bench, arguments)


def measure_posts(bench: Bench, connections: int, arguments: argparse.Namespace) -> None:
    """Accepted jobs beside the bare endpoint.

    The event loop accepts one connection a turn: the first request of each is late, and has to be below the
    hundredth part of all that p99 leaves out.
    """
    seconds = arguments.seconds * max(1, connections // 32)
    ours: list[Load] = []
    bare: list[Load] = []
    for _ in range(arguments.rounds):
        bare.append(wrk(bench.bare, "/", "POST", connections, seconds))
        bench.empty()
        path = f"/generate?class={SLUG}&n=1"
        ours.append(wrk(bench.service, path, "POST", connections, seconds))
        time.sleep(0.5)  # the last ones are still on their way when the load ends
        accepted = bench.redis.zcard(keys.JOB_INDEX)
        waiting = bench.redis.llen(f"rq:queue:{keys.CHUNK_QUEUE}")
        if not accepted == waiting >= ours[-1].requests:
            raise SystemExit(f"{ours[-1].requests} answers, {accepted} jobs, {waiting} chunks in the queue")
    bench.empty()
    print(f"\nPOST /generate?n=1, {connections} connections, every job written and enqueued")
    _compare(bare, ours, "bare endpoint, one round trip", "POST /generate")


def measure_gets(bench: Bench, connections: int, arguments: argparse.Namespace) -> None:
    """Looks at one of 200 queued jobs."""
    bench.empty()
    ids = [bench.submit(1) for _ in range(200)]
    bare, ours = [], []
    for _ in range(arguments.rounds):
        bare.append(wrk(bench.bare, "/", "GET", connections, arguments.seconds))
        ours.append(wrk(bench.service, f"/jobs/{ids[100]}", "GET", connections, arguments.seconds))
    bench.empty()
    print(f"\nGET /jobs/{{id}}, {connections} connections, 200 jobs queued")
    _compare(bare, ours, "bare endpoint, one round trip", "GET /jobs/{id}")


async def measure_events(bench: Bench, clients: int) -> None:
    """One job's events to many clients: at a pace, and as fast as they go."""
    bench.empty()
    job_id = bench.submit(1000)
    listeners = [asyncio.create_task(_listen(bench.service.port, job_id)) for _ in range(clients)]
    delays: list[float] = []
    await asyncio.sleep(2.0)
    streams = [await listener for listener in listeners]
    counts = [asyncio.create_task(_count(reader, delays)) for reader, _ in streams]
    stream = keys.events_key(job_id)
    events, per_second = 300, 60
    before, cpu = len(delays), bench.service.cpu_s()
    started = time.time()
    for index in range(events):
        await asyncio.sleep(max(0.0, started + index / per_second - time.time()))
        bench.redis.xadd(stream, {"event": "progress", "data": json.dumps({"t": time.time()})})
    await _until(lambda: len(delays) >= before + events * clients)
    cpu_paced = (bench.service.cpu_s() - cpu) / (events * clients) * 1e6
    paced = sorted(delays[before:])
    before, started, cpu = len(delays), time.time(), bench.service.cpu_s()
    with bench.redis.pipeline() as pipeline:
        for _ in range(events):
            pipeline.xadd(stream, {"event": "progress", "data": json.dumps({"t": time.time()})})
        pipeline.execute()
    await _until(lambda: len(delays) >= before + events * clients)
    seconds = time.time() - started
    cpu_burst = (bench.service.cpu_s() - cpu) / (events * clients) * 1e6
    for count, (_, writer) in zip(counts, streams, strict=True):
        count.cancel()
        writer.close()
    print(f"\nSSE, one job's events to {clients} clients")
    print(
        f"{per_second} events/s: {len(paced)} of {events * clients} delivered, delay p50 "
        f"{1e3 * paced[len(paced) // 2]:.1f} ms, p99 {1e3 * paced[int(0.99 * len(paced))]:.1f} ms, "
        f"{cpu_paced:.0f} us of CPU each"
    )
    print(
        f"{events} at once: {(len(delays) - before) / seconds:.0f} delivered/s, "
        f"{cpu_burst:.0f} us of CPU each"
    )


def measure_downloads(bench: Bench, arguments: argparse.Namespace) -> None:
    """The same bytes from the service and from nginx."""
    bench.empty()
    rows = []
    for archive_format in ("zip", "tar"):
        job_id = finished_job(bench, arguments.images, archive_format)
        path = f"/jobs/{job_id}/result"
        copy = bench.folder / "www" / f"result.{archive_format}"
        copy.parent.mkdir(exist_ok=True)
        with (
            httpx.stream("GET", bench.service.url + path, trust_env=False) as answer,
            copy.open("wb") as file,
        ):
            for block in answer.iter_bytes(BLOCK):
                file.write(block)
        with nginx_serving(copy.parent) as nginx:
            ways = {"nginx": (nginx, f"/{copy.name}"), f"service, {archive_format}": (bench.service, path)}
            best: dict[str, tuple[float, float]] = {}
            for _ in range(arguments.rounds):
                for name, (server, target) in ways.items():
                    speed, cpu = _fetch(server, target)
                    old = best.get(name, (0.0, 1e9))
                    best[name] = (max(speed, old[0]), min(cpu, old[1]))
        rows.append((copy.stat().st_size, best))
    print("\nDownloads, one client at a time, from the page cache")
    for size_bytes, best in rows:
        for name, (speed, cpu) in best.items():
            print(
                f"{name:16s} {speed:8.0f} MB/s  {cpu:6.2f} s CPU/GB  {speed / best['nginx'][0]:.2f} of nginx"
                f"  ({size_bytes / 1e6:.0f} MB)"
            )


def wrk(server: Server, path: str, method: str, connections: int, seconds: int) -> Load:
    """Requests as fast as they are answered, each connection one at a time."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK_SUMMARY % method)
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script.name]
        cpu = server.cpu_s()
        command.append(server.url + path)
        output = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603  # our own
    summary = json.loads(output.stdout[output.stdout.rindex("{") :])
    if summary["failed"]:
        raise SystemExit(f"{path}: {summary['failed']} requests failed")
    return Load(**summary, cpu_s=server.cpu_s() - cpu)


def serve_bare(redis_url: str) -> None:
    """The yardstick: FastAPI without parameters, one INCR to Redis for each request.

    What this file imports besides does not count: it is never searched for garbage.
    """
    import uvicorn
    from fastapi import FastAPI
    from redis.asyncio import Redis as AsyncRedis

    app, redis = FastAPI(), AsyncRedis.from_url(redis_url)

    @app.get("/livez")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/")
    @app.post("/")
    async def bare() -> dict[str, int]:
        return {"count": await redis.incr("bare")}

    gc.freeze()
    uvicorn.run(app, port=int(os.environ["MASAN_PORT"]), log_level="warning", access_log=False)


def _compare(bare: list[Load], ours: list[Load], yardstick: str, name: str) -> None:
    print(f"{'':32s} {'per s':>8s} {'p50 ms':>8s} {'p99 ms':>8s} {'CPU us each':>12s}")
    for label, loads in ((yardstick, bare), (name, ours)):
        per_second, p50_ms, p99_ms, cpu_us = (
            statistics.median(values)
            for values in zip(
                *((load.per_second, load.p50_ms, load.p99_ms, load.cpu_us_each) for load in loads),
                strict=True,
            )
        )
        print(f"{label:32s} {per_second:8.0f} {p50_ms:8.1f} {p99_ms:8.1f} {cpu_us:12.0f}")
    ratios = sorted(load.per_second / other.per_second for load, other in zip(ours, bare, strict=True))
    print(f"ratio {statistics.median(ratios):.2f} (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})")


async def _listen(port: int, job_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An open event stream; the writer has to be held, or the connection closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.write(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    while (await reader.readline()).strip():
        pass
    return reader, writer


async def _count(reader: asyncio.StreamReader, delays: list[float]) -> None:
    """Note of each event how late it came."""
    mark = b'"t": '
    while line := await reader.readline():
        if mark in line:
            sent = line.partition(mark)[2].split(b"}")[0]
            delays.append(time.time() - float(sent))


async def _until(is_over: Callable[[], bool], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not is_over():
        if time.monotonic() > deadline:
            raise SystemExit("not all events came in time")
        await asyncio.sleep(0.002)


def _fetch(server: Server, path: str) -> tuple[float, float]:
    """MB/s, and the server's CPU seconds per GB."""
    buffer = bytearray(BLOCK)
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        cpu, started = server.cpu_s(), time.perf_counter()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        got = 0
        while size := connection.recv_into(buffer):
            if got == 0 and not buffer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(bytes(buffer[:200]))
            got += size
        seconds = time.perf_counter() - started
    time.sleep(0.05)
    return got / seconds / 1e6, (server.cpu_s() - cpu) / (got / 1e9)


if __name__ == "__main__":
    main()
