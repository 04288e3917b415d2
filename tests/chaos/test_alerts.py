"""Each of the six alerts fires, on a real Prometheus that scrapes the stack, once what it is about happens.

The rules are those that ship, with every window, `for` and `offset` a sixtieth as long.
"""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from masan.processes import free_port
from model_store.report import attach_report
from model_store.weights import WEIGHTS_FILE
from tests.chaos.conftest import Record
from tests.chaos.stack import (
    ServiceProcess,
    Stack,
    eventually,
    submit,
    wait_until_final,
    wait_until_succeeded,
)
from tests.expressions import RULES_FILE, rules
from tests.full_report import full_report
from tests.real_prometheus import Prometheus, running_prometheus

SIXTIETH = {"d": 1440, "h": 60, "m": 1}
"""Seconds for a day, an hour, a minute."""
FAILED_JOBS = 6

pytestmark = pytest.mark.timeout(120)


def hastened(text: str) -> str:
    """Rules whose durations are a sixtieth of what they were."""
    duration = re.compile(r"(\[|\bfor: |\boffset )(\d+)([dhm])\b")
    return duration.sub(lambda found: f"{found[1]}{int(found[2]) * SIXTIETH[found[3]]}s", text)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One of our own, beside that of the other faults: its counters begin at nothing."""
    stack = Stack(tmp_path_factory.mktemp("alerts"))
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Looks at one service and one worker twice a second."""
    port = free_port()
    stack.start_worker(MASAN_METRICS_PORT=str(port))
    service = stack.front()
    scraped = {"masan-service": [f"127.0.0.1:{service.port}"], "masan-worker": [f"127.0.0.1:{port}"]}
    folder: Path = tmp_path_factory.mktemp("prometheus")
    hasty = hastened(RULES_FILE.read_text())
    with running_prometheus(folder, scraped, interval_s=0.5, rules=hasty) as prometheus:
        yield prometheus


Watch = Callable[[set[str], float], None]
"""Wait for these alerts, at most so many seconds."""


@pytest.fixture
def watch(prometheus: Prometheus, record: Record) -> Watch:
    """None of the alerts waited for fires yet; the seconds until each does are recorded."""

    def until(names: set[str], within_s: float) -> None:
        began = time.monotonic()
        missing = set(names)
        assert not missing & prometheus.firing()

        def look() -> bool:
            for name in missing & prometheus.firing():
                record(f"{name}, windows a sixtieth as long: until it fired", time.monotonic() - began)
                missing.discard(name)
            return not missing

        try:
            eventually(look, within_s, every_s=0.25)
        except AssertionError:
            pytest.fail(f"{missing} did not fire within {within_s:g} s")

    return until


def test_rules_are_hastened_and_nothing_else() -> None:
    text = RULES_FILE.read_text()

    assert hastened("rate(x[5m])\n  for: 10m\n y offset 1d") == "rate(x[5s])\n  for: 10s\n y offset 1440s"
    assert not re.search(r"\[\d+[dhm]\]|for: \d+[dhm]|offset \d+[dhm]", hastened(text))
    assert re.sub(r"\d+[dhms]\b", "", hastened(text)) == re.sub(r"\d+[dhms]\b", "", text)


def test_none_fires_while_all_is_well(stack: Stack, prometheus: Prometheus) -> None:
    service = stack.front()
    wait_until_succeeded(service.http, submit(service.http, 64))
    time.sleep(7)  # longer than a window and its `for`

    known = prometheus.ask("rules", type="alert")["groups"]
    assert {rule["name"] for group in known for rule in group["rules"]} == {rule["alert"] for rule in rules()}
    assert all(rule["health"] == "ok" for group in known for rule in group["rules"])
    assert prometheus.firing() == set()


def test_checkpoint_that_cannot_be_read(
    stack: Stack, service: ServiceProcess, prometheus: Prometheus, watch: Watch
) -> None:
    weights = Path(stack.store.url) / "tiny" / "versions" / "2" / WEIGHTS_FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    jobs = [submit(service.http, 4, model="tiny@2") for _ in range(FAILED_JOBS)]

    watch({"MasanJobFailures"}, 20)

    assert [wait_until_final(service.http, job)["status"] for job in jobs] == ["failed"] * FAILED_JOBS
    weights.write_bytes(whole)


def test_checkpoint_that_copies_training_images(stack: Stack, prometheus: Prometheus, watch: Watch) -> None:
    checkpoint = stack.store.resolve("tiny@1")
    report = full_report(checkpoint.digest)
    copies = {
        slug: check.model_copy(update={"memorized_ratio": 0.05}) for slug, check in report.checks.items()
    }
    well = {slug: check.model_copy(update={"memorized_ratio": 0.0}) for slug, check in report.checks.items()}
    attach_report(stack.store, checkpoint, report.model_copy(update={"checks": copies}))

    watch({"MasanClassQuality"}, 20)

    attach_report(stack.store, checkpoint, report.model_copy(update={"checks": well}))
    eventually(lambda: "MasanClassQuality" not in prometheus.firing(), 15, every_s=0.25)


def test_worker_that_stands_still(
    stack: Stack, service: ServiceProcess, prometheus: Prometheus, watch: Watch
) -> None:
    [worker] = stack.crew(1)
    worker.signal(signal.SIGSTOP)
    job = submit(service.http, 16)

    watch({"MasanNoLiveWorker", "MasanQueueStalled", "MasanBacklog"}, 60)

    worker.signal(signal.SIGCONT)
    wait_until_succeeded(service.http, job)
    gone = {"MasanNoLiveWorker", "MasanQueueStalled", "MasanBacklog"}
    eventually(lambda: not gone & prometheus.firing(), 15, every_s=0.25)


def test_valkey_that_is_gone(
    stack: Stack, service: ServiceProcess, prometheus: Prometheus, watch: Watch
) -> None:
    stack.valkey_process.signal(signal.SIGKILL)
    stack.valkey_process.wait(time.monotonic() + 10)

    watch({"MasanStoreOrRedis"}, 20)

    stack.restart_valkey()
    eventually(lambda: "MasanStoreOrRedis" not in prometheus.firing(), 20, every_s=0.25)
