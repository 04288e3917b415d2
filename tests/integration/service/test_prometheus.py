"""A real Prometheus scrapes a service and a worker, evaluates our alerts, answers what a dashboard asks."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.integration.service.harness import Service
from tests.worker_stack import NO_GUARD_S
from worker.process import WorkerProcess
from worker.settings import WorkerSettings

pytestmark = pytest.mark.integration

ALERTS = Path(__file__).parents[3] / "deploy/prometheus/alerts.yml"


@pytest.fixture
def worker(service: Service) -> Iterator[WorkerProcess]:
    """A worker that has not begun, with its own /metrics."""
    process = WorkerProcess(
        WorkerSettings(
            redis_url=service.settings.redis_url,
            model_store_url=service.settings.model_store_url,
            result_store_url=service.settings.result_store_url,
            default_model="tiny",
            device="cpu",
            threads=1,
            encode_threads=1,
            micro_batch_timeout_s=NO_GUARD_S,
        )
    )
    yield process
    process.metrics.close()


@contextmanager
def scraping(folder: Path, targets: dict[str, str]) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes `host:port` of each job every second; skips where none is installed."""
    path = shutil.which("prometheus")
    if path is None:
        pytest.skip("needs prometheus, of Debian's package of that name")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [target]}]} for job, target in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        path,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait(20)


def ask(prometheus: httpx.Client, expression: str, *, within_s: float = 30) -> list[dict[str, Any]]:
    """The first answer that is not empty."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            response = prometheus.get("/query", params={"query": expression})
            if response.status_code == 200 and (result := response.json()["data"]["result"]):
                found: list[dict[str, Any]] = result
                return found
        except httpx.TransportError:
            pass  # it has not started yet
        time.sleep(0.2)
    pytest.fail(f"Prometheus has no answer to {expression}")


def number(prometheus: httpx.Client, expression: str) -> float:
    (found,) = ask(prometheus, expression)
    return float(found["value"][1])


def test_prometheus_scrapes_both_and_answers(service: Service, worker: WorkerProcess, tmp_path: Path) -> None:
    service.submit(n=12)
    port = worker.metrics.serve("127.0.0.1", 0)
    assert worker.run(burst=True) == 0
    targets = {"masan-service": service.client.base_url.netloc.decode(), "masan-worker": f"127.0.0.1:{port}"}

    with scraping(tmp_path, targets) as prometheus:
        scraped = number(prometheus, "count(up == 1) == 2")
        images = number(prometheus, 'sum(max by (class) (masan_images_generated_total{class="pro_b"}))')
        busy = number(prometheus, "masan_worker_busy_seconds_total")
        p95 = number(
            prometheus, "histogram_quantile(0.95, sum by (le) (masan_job_queue_wait_seconds_bucket)) >= 0"
        )
        stored = number(prometheus, "max by (backend) (masan_result_store_bytes)")
        joined = ask(
            prometheus,
            "masan_class_kid * on (model_version) group_left (alias) max by (model_version, alias) "
            '(masan_model_info{alias="production"})',
        )
        rules = prometheus.get("/rules").json()["data"]["groups"][0]["rules"]

    assert (scraped, images) == (2, 12)
    assert busy > 0 and p95 >= 0 and stored > 0
    assert {row["metric"]["class"] for row in joined} == {"benign", "pro_b"}
    assert len(rules) == 6
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert [rule.get("lastError") for rule in rules if rule.get("lastError")] == []
