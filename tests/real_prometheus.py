"""A real Prometheus on loopback that scrapes what a test started."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from masan.processes import free_port
from tests.tools import tool

_READY_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Prometheus:
    """Answers questions about what it has scraped."""

    http: httpx.Client

    def ask(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer of its HTTP API. Fails on an error, such as an expression it cannot read."""
        answer = self.http.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def query(self, expr: str, at: float | None = None) -> dict[frozenset[tuple[str, str]], float]:
        """Value of each series of an instant vector by its labels. at: epoch seconds, None for now."""
        moment = {} if at is None else {"time": at}
        found = self.ask("query", query=expr, **moment)
        assert found["resultType"] == "vector", expr
        return {frozenset(row["metric"].items()): float(row["value"][1]) for row in found["result"]}

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def wait_for_scrapes(self, count: int) -> None:
        """Until every target has answered so many more, the last one too."""
        answered: dict[str, set[str]] = {}
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            targets = self.ask("targets", state="active")["activeTargets"]
            for target in targets:
                if target["health"] == "up":
                    answered.setdefault(target["scrapeUrl"], set()).add(target["lastScrape"])
            if all(
                target["health"] == "up" and len(answered[target["scrapeUrl"]]) > count for target in targets
            ):
                return
            assert time.monotonic() < deadline, targets
            time.sleep(0.05)

    def scraped(self) -> list[str]:
        """Addresses that answered their last scrape."""
        targets = self.ask("targets", state="active")["activeTargets"]
        return [target["labels"]["instance"] for target in targets if target["health"] == "up"]


@contextmanager
def running_prometheus(
    folder: Path, targets: Mapping[str, Sequence[str]], *, interval_s: float, rules: str | None = None
) -> Iterator[Prometheus]:
    """Scrape and evaluate every `interval_s` until the block ends; begins once all targets have answered.

    targets: addresses by job. rules: text of a file of rules. The test skips where it is not installed.
    """
    binary = tool("prometheus", "Debian's prometheus")
    every = f"{int(1000 * interval_s)}ms"
    configuration: dict[str, Any] = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
            for job, addresses in targets.items()
        ],
    }
    if rules is not None:
        (folder / "rules.yml").write_text(rules)
        configuration["rule_files"] = ["rules.yml"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as http:
            prometheus = Prometheus(http)
            _wait(process, prometheus, sum(map(len, targets.values())), folder / "prometheus.log")
            yield prometheus
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: "subprocess.Popen[bytes]", prometheus: Prometheus, count: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if prometheus.http.get("/-/ready").is_success and len(prometheus.scraped()) == count:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not all of {count} targets were scraped: {log.read_text()}")
