"""Images per second of a whole job beside those of the bare generator, in turns in one run.

    python benchmarks/pipeline.py                     # full width, n=500 PNG
    python benchmarks/pipeline.py --model builtin     # the shipped checkpoint
    python benchmarks/pipeline.py --memory            # service and worker from n=100 to n=10,000

A job counts from its submit to the last byte of its archive, with Valkey, a service and a worker of their own
on this machine; the bare generator draws on as many threads as the worker, and does nothing else. The first
image counts from when the worker took the job to when its shard could be read, in time of one micro-batch.
Where others use the machine too, the share in CPU time says more than that in images per second.
`--memory` uses a narrow generator, which is fast; how large service and worker get does not depend on it.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import cast

from hardware import hardware_line
from serving_stack import BareGenerator, ServingStack, serving_stack
from worker.contract import keys

NARROW = "fresh:2"


def first_image_s(stack: ServingStack, job_id: str) -> float:
    """Seconds from `running` to the first shard, by the ids of the job's events."""
    at: dict[str, float] = {}
    entries = cast("list[tuple[str, dict[str, str]]]", stack.redis.xrange(keys.events_key(job_id)))
    for event_id, entry in entries:
        name = "running" if entry["data"] == '{"status":"running"}' else entry["event"]
        at.setdefault(name, int(event_id.partition("-")[0]) / 1e3)
    return at["shard"] - at["running"]


def measure_rate(stack: ServingStack, bare: BareGenerator, arguments: argparse.Namespace) -> None:
    """Print a line for each round, then medians and the share."""
    slug = stack.checkpoint.manifest.classes[-1]
    shares, firsts, rates, bares = [], [], [], []
    stack.wait(stack.submit(4 * stack.threads, slug))  # what is loaded at its first use
    before, _ = bare.images_per_second(arguments.bare_seconds)
    for number in range(arguments.rounds):
        cpu = stack.usage("worker").cpu_seconds, stack.usage("service").cpu_seconds
        started = time.monotonic()
        job_id = stack.submit(arguments.n, slug, seed=number)
        stack.wait(job_id)
        stack.download(job_id)
        rate = arguments.n / (time.monotonic() - started)
        worker_cpu = (stack.usage("worker").cpu_seconds - cpu[0]) / arguments.n
        service_cpu = (stack.usage("service").cpu_seconds - cpu[1]) / arguments.n
        after, bare_cpu = bare.images_per_second(arguments.bare_seconds)
        beside = (before + after) / 2
        first = first_image_s(stack, job_id) / (bare.micro_batch * stack.threads / beside)
        print(
            f"round {number + 1}: job {rate:.2f} images/s, bare {beside:.2f}, share {rate / beside:.3f}, "
            f"first image after {first:.2f} micro-batches; CPU ms an image: worker {worker_cpu * 1e3:.1f}, "
            f"service {service_cpu * 1e3:.1f}, bare {bare_cpu * 1e3:.1f}, "
            f"share {bare_cpu / (worker_cpu + service_cpu):.3f}"
        )
        shares.append(rate / beside)
        firsts.append(first)
        rates.append(rate)
        bares.append(beside)
        before = after
    print(
        f"median: job {statistics.median(rates):.2f} images/s, bare {statistics.median(bares):.2f}, "
        f"share {statistics.median(shares):.3f} (goal 0.9), "
        f"first image after {statistics.median(firsts):.2f} micro-batches (goal 1)"
    )
    used, size = stack.usage("service").cpu_seconds, 0
    for _ in range(arguments.downloads):
        size += stack.download(job_id)
    used = stack.usage("service").cpu_seconds - used
    print(f"service: {used / size * 1e9:.2f} CPU s per delivered gigabyte ({size / 1e6:.0f} MB read)")


class _Peaks(threading.Thread):
    """Looks at resident sizes until `stop` is called; remembers the largest."""

    def __init__(self, stack: ServingStack) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._done = threading.Event()
        self.bytes = {"service": 0, "worker": 0}

    def run(self) -> None:
        while not self._done.wait(0.05):
            for name, peak in self.bytes.items():
                self.bytes[name] = max(peak, self._stack.usage(name).rss_bytes)

    def stop(self) -> dict[str, int]:
        self._done.set()
        self.join()
        return self.bytes


def measure_memory(stack: ServingStack, sizes: list[int]) -> None:
    """Print the largest resident sizes for each n, and how far they are apart."""
    slug = stack.checkpoint.manifest.classes[-1]
    found = []
    for n in sizes:
        peaks = _Peaks(stack)
        peaks.start()
        started = time.monotonic()
        job_id = stack.submit(n, slug, gate="off")
        stack.wait(job_id)
        size = stack.download(job_id)
        seconds = time.monotonic() - started
        found.append(peaks.stop())
        service, worker = (found[-1][name] / 1e6 for name in ("service", "worker"))
        print(
            f"n={n}: service {service:.0f} MB, worker {worker:.0f} MB, "
            f"archive {size / 1e6:.0f} MB, {n / seconds:.1f} images/s"
        )
    for name in ("service", "worker"):
        grown = max(row[name] for row in found) - found[0][name]
        print(f"{name}: {grown / 1e6:+.0f} MB from n={sizes[0]} to n={sizes[-1]} (goal: within 50)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="builtin, fresh or fresh:CHANNELS; fresh is of full width")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="forward passes at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bare-seconds", type=float, default=8.0)
    parser.add_argument("--downloads", type=int, default=5, help="of the archive, for the service's CPU time")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000], help="with --memory")
    arguments = parser.parse_args()
    model = arguments.model or (NARROW if arguments.memory else "fresh")
    print(hardware_line())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "stack"
        with serving_stack(folder, model, threads=arguments.threads, device=arguments.device) as stack:
            print(f"{stack.model} ({model}), {arguments.threads} threads on {arguments.device}")
            if arguments.memory:
                measure_memory(stack, arguments.sizes)
            else:
                measure_rate(stack, stack.bare_generator(), arguments)


if __name__ == "__main__":
    main()
