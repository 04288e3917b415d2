"""Images per second of many requests for one image at once, beside those of one large job, in turns.

    python benchmarks/small_requests.py                   # 200 requests of n=1, of all classes in turn
    python benchmarks/small_requests.py --n 4 --requests 50

Both sides count from the first submit to the last answer that says `succeeded`, each waited for by
`Prefer: wait`; every small request has a connection of its own. A lone request is timed as well: what joins
requests must not keep one waiting that comes alone.
"""

import argparse
import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlencode

from hardware import hardware_line
from serving_stack import ServingStack, serving_stack


def _request(address: str, asked: dict[str, str | int], start: threading.Barrier | None = None) -> float:
    """Seconds from asking to the answer of the finished job."""
    connection = http.client.HTTPConnection(address, timeout=300)
    connection.connect()
    if start is not None:
        start.wait()
    began = time.monotonic()
    method, path = "POST", f"/generate?{urlencode(asked)}"
    while True:
        connection.request(method, path, headers={"Prefer": "wait=60"})
        response = connection.getresponse()
        body = json.loads(response.read())
        if response.status not in (200, 202):
            raise RuntimeError(f"{method} {path}: {response.status} {body.get('detail')}")
        if body["finished_at"]:
            break
        method, path = "GET", body["links"]["self"]
    connection.close()
    if body["status"] != "succeeded":
        raise RuntimeError(f"job {body['id']} {body['status']}: {body}")
    return time.monotonic() - began


def small_rate(stack: ServingStack, requests: int, n: int, seed: int) -> tuple[float, list[float]]:
    """Images per second of `requests` jobs at once, and the seconds of each."""
    address = stack.http.base_url.netloc.decode()
    classes = stack.checkpoint.manifest.classes
    start = threading.Barrier(requests + 1)
    seconds: list[float] = []
    failures: list[Exception] = []

    def ask(number: int) -> None:
        asked: dict[str, str | int] = {"class": classes[number % len(classes)], "n": n}
        asked |= {"model": stack.model, "seed": seed + number}
        try:
            seconds.append(_request(address, asked, start))
        except (OSError, RuntimeError) as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(requests)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    if failures:
        raise RuntimeError(f"{len(failures)} of {requests} requests failed: {failures[0]}")
    return requests * n / took, seconds


def large_rate(stack: ServingStack, images: int, seed: int) -> float:
    """Images per second of one job."""
    asked: dict[str, str | int] = {"class": stack.checkpoint.manifest.classes[0], "n": images}
    asked |= {"model": stack.model, "seed": seed}
    return images / _request(stack.http.base_url.netloc.decode(), asked)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fresh", help="builtin, fresh or fresh:CHANNELS")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--n", type=int, default=1, help="images of each request")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="forward passes at once")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    images = arguments.requests * arguments.n
    print(hardware_line())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "stack"
        with serving_stack(
            folder, arguments.model, threads=arguments.threads, device=arguments.device
        ) as stack:
            print(f"{stack.model} ({arguments.model}), {arguments.threads} threads on {arguments.device}")
            large_rate(stack, 4 * arguments.threads, seed=1)  # what is loaded at its first use
            lone = [small_rate(stack, 1, arguments.n, seed=2 + number)[1][0] for number in range(5)]
            print(f"a lone request of n={arguments.n}: {statistics.median(lone) * 1e3:.0f} ms")
            shares = []
            before = large_rate(stack, images, seed=10)
            for number in range(arguments.rounds):
                cpu = stack.usage("worker").cpu_seconds, stack.usage("service").cpu_seconds
                rate, seconds = small_rate(stack, arguments.requests, arguments.n, seed=1_000 * (number + 1))
                worker_ms = (stack.usage("worker").cpu_seconds - cpu[0]) / arguments.requests * 1e3
                service_ms = (stack.usage("service").cpu_seconds - cpu[1]) / arguments.requests * 1e3
                after = large_rate(stack, images, seed=11 + number)
                beside, before = (before + after) / 2, after
                shares.append(rate / beside)
                print(
                    f"round {number + 1}: {arguments.requests} requests of n={arguments.n} "
                    f"{rate:.2f} images/s (median answer {statistics.median(seconds):.2f} s), "
                    f"one of n={images} {beside:.2f}, share {shares[-1]:.3f}; "
                    f"CPU ms a request: worker {worker_ms:.1f}, service {service_ms:.1f}"
                )
            print(f"median share {statistics.median(shares):.3f} (goal 0.8)")


if __name__ == "__main__":
    main()
