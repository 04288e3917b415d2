"""Reports over HTTP: asked for, made by a process of their own, kept beside the checkpoint, never stuck."""

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from masan.report_maker import Judge, Progress, ReportDataError
from masan.report_settings import ReportWorkerSettings
from masan.report_worker import ReportProcess
from model_store.manifest import FileEntry
from model_store.report import QualityReport
from model_store.store import Checkpoint, ModelStore
from service.checkpoints import catalogue as service_catalogue
from service.checkpoints.reports import GRACE_S, LIMIT_S, MAX_LOSSES
from service.context import Services
from service.settings import ServiceSettings
from tests.integration.service.harness import Service, quality_report
from worker.contract import keys
from worker.contract.report_queue import open_report_queue

pytestmark = pytest.mark.integration


@pytest.fixture
def services(settings: ServiceSettings, service: Service) -> Iterator[Services]:
    """The parts of a second service process on the same backends."""
    services = Services.build(settings, service.clock)
    yield services
    services.close()


def judge(checkpoint: Checkpoint, n: int, progress: Progress) -> QualityReport:
    """Made-up figures that tell how many images were asked for."""
    for done in range(3):
        progress("draw", done, n)
    return quality_report(checkpoint.digest).model_copy(update={"notes": f"of {n}"})


def live(service: Service, *, has_data: bool = True, **changes: object) -> None:
    """Let a process that makes reports appear in the registry."""
    service.register_worker("r1", has_data=has_data, **changes)  # type: ignore[arg-type]
    entry = service.redis.hget(keys.WORKERS, "r1")
    service.redis.hset(keys.REPORT_WORKERS, "r1", str(entry))
    service.redis.hdel(keys.WORKERS, "r1")


def ask(service: Service, **parameters: Any) -> dict[str, Any]:
    response = service.client.post("/reports", params=parameters)
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    assert response.headers["location"] == body["links"]["self"] == f"/reports/{body['id']}"
    return body


def look(service: Service, report_id: str) -> dict[str, Any]:
    body: dict[str, Any] = service.client.get(f"/reports/{report_id}").json()
    return body


def work(service: Service, judged_by: Judge = judge) -> None:
    """Run a report process until the queue is empty."""
    settings = ReportWorkerSettings(
        redis_url=service.settings.redis_url, model_store_url=service.settings.model_store_url
    )
    assert ReportProcess(settings, judged_by).run(burst=True) == 0


def waiting(service: Service) -> list[str]:
    with Redis.from_url(service.settings.redis_url) as redis:
        return open_report_queue(redis).get_job_ids()


def lose(service: Service, services: Services) -> None:
    """The queue forgets everything, and the reaper notices."""
    service.redis.delete("rq:queue:reports")
    services.reports.tend(service.clock())
    services.reports.tend(service.clock() + GRACE_S + 0.1)


def test_nobody_to_make_reports_is_503(service: Service) -> None:
    response = service.client.post("/reports?model=tiny@1")

    assert (response.status_code, response.json()["code"]) == (503, "no_worker")
    assert "masan work --queue reports" in response.json()["detail"]


def test_nothing_to_judge_against_is_409_and_says_what_to_do(service: Service) -> None:
    live(service, has_data=False)

    response = service.client.post("/reports?model=tiny@1")

    assert (response.status_code, response.json()["code"]) == (409, "reference_missing")
    assert "MASAN_REPORT_DATA" in response.json()["detail"]


def test_a_checkpoint_with_a_reference_set_needs_no_images(service: Service) -> None:
    live(service, has_data=False)
    entry = FileEntry(path="reference.safetensors", sha256=hashlib.sha256(b"").hexdigest(), size_bytes=0)
    manifest = service.checkpoint.manifest.model_copy(update={"name": "kept", "reports": (entry,)})
    store = ModelStore(service.settings.model_store_url)
    weights = store.read_file(service.checkpoint, "weights.safetensors")
    store.publish(manifest, {"weights.safetensors": weights, entry.path: b""})

    assert ask(service, model="kept@1")["status"] == "queued"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("n=11", 422, "invalid_parameter"),
        ("n=2001", 422, "invalid_parameter"),
        ("n=1e3", 422, "invalid_parameter"),
        ("class=pro_b", 422, "invalid_parameter"),
        ("model=nobody", 404, "not_found"),
    ],
)
def test_what_cannot_be_asked_is_named(service: Service, query: str, status: int, code: str) -> None:
    live(service)

    response = service.client.post(f"/reports?{query}")

    assert (response.status_code, response.json()["code"]) == (status, code)
    assert query.partition("=")[0] in response.text


@pytest.mark.parametrize("report_id", ["report_nope", "job_01KAQ3V5T8X2M4N6P8R0S2T4V6", "fid%2F.."])
def test_an_unknown_report_is_404(service: Service, report_id: str) -> None:
    response = service.client.get(f"/reports/{report_id}")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_a_report_is_made_kept_and_shown_without_a_restart(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_catalogue, "_KEEP_S", 0.0)
    live(service)
    before = service.metric('masan_quality_report_timestamp_seconds{model_version="tiny@1"}')
    asked = ask(service, model="tiny@production", n=20)

    def later(checkpoint: Checkpoint, n: int, progress: Progress) -> QualityReport:
        made = judge(checkpoint, n, progress)
        return made.model_copy(update={"created_at": made.created_at.replace(year=2027)})

    work(service, later)

    made = look(service, asked["id"])
    assert (asked["status"], made["status"], made["attempt"]) == ("queued", "succeeded", 1)
    assert (made["n"], made["model"]["version"]) == (20, "1")
    assert service.client.get(made["links"]["fid"]).json()["notes"] == "of 20"
    assert service.metric('masan_quality_report_timestamp_seconds{model_version="tiny@1"}') > before
    assert waiting(service) == []


def test_asking_again_while_it_is_under_way_gives_the_same_report(service: Service) -> None:
    live(service)
    first = ask(service, model="tiny@1")

    assert ask(service, model="tiny@production")["id"] == first["id"]
    assert ask(service, model="tiny@1", n=20)["id"] != first["id"]
    assert len(waiting(service)) == 2
    work(service)
    assert ask(service, model="tiny@1")["id"] != first["id"]


def test_progress_is_told_and_monotone_in_its_record(service: Service) -> None:
    live(service)
    seen: list[dict[str, Any]] = []
    asked = ask(service, n=20)

    def watched(checkpoint: Checkpoint, n: int, progress: Progress) -> QualityReport:
        for stage in ("draw pro_b", "search copies"):
            progress(stage, 7, n)
            seen.append(look(service, asked["id"]))
        return judge(checkpoint, n, progress)

    work(service, watched)

    assert [body["status"] for body in seen] == ["running", "running"]
    assert [body["progress"] for body in seen] == [
        {"stage": "draw pro_b", "done": 7, "total": 20},
        {"stage": "search copies", "done": 7, "total": 20},
    ]


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ReportDataError("other classes"), "dataset_invalid", True),
        (KeyError("a secret"), "internal", False),
        (MemoryError("a secret"), "internal", False),
    ],
)
def test_a_failure_is_final_and_says_why(service: Service, error: Exception, code: str, told: bool) -> None:
    live(service)
    asked = ask(service)

    def failing(checkpoint: Checkpoint, n: int, progress: Progress) -> QualityReport:
        raise error

    work(service, failing)

    body = look(service, asked["id"])
    assert (body["status"], body["error"]["code"], body["links"]["fid"]) == ("failed", code, None)
    assert (str(error) in body["error"]["message"]) is told
    assert ask(service)["id"] != asked["id"]


def test_a_lost_report_is_made_nevertheless(service: Service, services: Services) -> None:
    live(service)
    asked = ask(service)

    lose(service, services)
    work(service)

    assert look(service, asked["id"])["status"] == "succeeded"


def test_one_look_is_not_enough_to_call_a_report_lost(service: Service, services: Services) -> None:
    live(service)
    ask(service)
    service.redis.delete("rq:queue:reports")

    services.reports.tend(service.clock())

    assert waiting(service) == []


def test_a_report_lost_again_and_again_fails(service: Service, services: Services) -> None:
    live(service)
    asked = ask(service)

    for _ in range(MAX_LOSSES + 1):
        lose(service, services)

    body = look(service, asked["id"])
    assert (body["status"], body["error"]["code"]) == ("failed", "worker_lost")
    assert service.redis.zcard(keys.ACTIVE_REPORTS) == 0


def test_a_report_that_nobody_makes_fails_after_a_day(service: Service, services: Services) -> None:
    live(service)
    asked = ask(service)

    services.reports.tend(service.clock() + LIMIT_S + 1)

    assert look(service, asked["id"])["error"]["code"] == "timeout"


SLOW = """
import sys, time
from masan.report_settings import ReportWorkerSettings
from masan.report_worker import ReportProcess

def judge(checkpoint, n, progress):
    while True:
        progress("draw", 1, 2)
        time.sleep(0.05)

settings = ReportWorkerSettings(redis_url=sys.argv[1], model_store_url=sys.argv[2])
sys.exit(ReportProcess(settings, judge).run())
"""


@pytest.fixture
def slow_worker(service: Service) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in the middle of a report that it never ends."""
    live(service)
    arguments = [service.settings.redis_url, service.settings.model_store_url]
    with subprocess.Popen([sys.executable, "-c", SLOW, *arguments]) as process:
        try:
            asked = ask(service)
            deadline = time.monotonic() + 20
            while look(service, asked["id"])["progress"]["stage"] != "draw":
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield process
        finally:
            process.kill()


def unfinished(service: Service) -> str:
    (report_id,) = service.redis.zrange(keys.ACTIVE_REPORTS, 0, -1)
    return str(report_id)


def test_a_killed_process_s_report_is_made_by_the_next(
    service: Service, services: Services, slow_worker: "subprocess.Popen[bytes]"
) -> None:
    report_id = unfinished(service)
    slow_worker.send_signal(signal.SIGKILL)
    slow_worker.wait(5)

    with Redis.from_url(service.settings.redis_url) as redis:  # as if its heartbeats had been missed
        open_report_queue(redis).started_job_registry.cleanup(time.time() + 16)
    services.reports.tend(service.clock())
    services.reports.tend(service.clock() + GRACE_S + 0.1)
    work(service)

    body = look(service, report_id)
    assert (body["status"], body["attempt"]) == ("succeeded", 2)


def test_a_stopped_process_puts_its_report_back(
    service: Service, slow_worker: "subprocess.Popen[bytes]"
) -> None:
    report_id = unfinished(service)

    slow_worker.send_signal(signal.SIGTERM)

    assert slow_worker.wait(10) == 0
    assert look(service, report_id)["status"] == "queued"
    assert len(waiting(service)) == 1
    work(service)
    assert look(service, report_id)["status"] == "succeeded"


def test_a_process_taken_for_dead_does_not_end_the_report(service: Service, services: Services) -> None:
    live(service)
    asked = ask(service, n=20)

    def overtaken(checkpoint: Checkpoint, n: int, progress: Progress) -> QualityReport:
        services.reports._ledger.lose(asked["id"])
        made = judge(checkpoint, n, progress)
        return made.model_copy(update={"notes": "of nobody"})

    work(service, overtaken)

    assert look(service, asked["id"])["status"] == "queued"
    assert "of nobody" not in service.client.get("/reports/fid?model=tiny@1").text


def test_settings_of_a_dataset_that_is_not_there_are_refused(tmp_path: Path, redis_url: str) -> None:
    environment = {
        "MASAN_REDIS_URL": redis_url,
        "MASAN_MODEL_STORE_URL": str(tmp_path),
        "MASAN_REPORT_DATA": "nowhere",
    }

    done = subprocess.run(
        [sys.executable, "-m", "masan.report_worker"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "MASAN_REPORT_DATA = 'nowhere': Value error, there is no such folder or file" in done.stderr
