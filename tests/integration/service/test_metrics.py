"""The families that dashboards and alerts rely on: all there from the start, bounded, sound to promtool."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import torch
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.metrics.counters import MIXED, PRIORITIES, counter_families
from service.settings import ServiceSettings
from tests.checkpoints import CLASSES
from tests.integration.service.harness import Clock, Service, running
from worker.contract import keys
from worker.contract.messages import (
    ChunkResult,
    ClassCount,
    JobSpec,
    JobStatus,
    ModelRef,
    Priority,
    RejectionReason,
)
from worker.metrics import WorkerMetrics
from written_jobs import write_job

pytestmark = pytest.mark.integration

OF_THE_SERVICE = [
    "masan_http_requests",
    "masan_http_request_duration_seconds",
    "masan_http_requests_in_progress",
    "masan_sse_streams",
    "masan_admission_rejections",
    "masan_idempotent_replays",
    "masan_jobs_created",
    "masan_jobs_completed",
    "masan_job_queue_wait_seconds",
    "masan_job_time_to_first_image_seconds",
    "masan_job_duration_seconds",
    "masan_jobs",
    "masan_queue_images",
    "masan_queue_oldest_age_seconds",
    "masan_workers",
    "masan_worker_last_heartbeat_timestamp_seconds",
    "masan_chunks",
    "masan_chunk_retries",
    "masan_images_generated",
    "masan_images_rejected",
    "masan_model_info",
    "masan_class_frechet_distance",
    "masan_class_frechet_distance_floor",
    "masan_class_kid",
    "masan_class_fid",
    "masan_class_recall_ratio",
    "masan_class_label_agreement_ratio",
    "masan_class_memorized_ratio",
    "masan_class_served_kid",
    "masan_quality_report_timestamp_seconds",
    "masan_result_store_bytes",
    "masan_result_store_free_bytes",
    "masan_result_expired",
    "masan_download_bytes",
    "masan_webhook_deliveries",
    "masan_redis_errors",
    "masan_redis_up",
]
OF_THE_WORKER = [
    "masan_batch_images",
    "masan_stage_duration_seconds",
    "masan_worker_busy_seconds",
    "masan_gpu_out_of_memory",
    "masan_model_load_duration_seconds",
    "masan_worker_model_info",
    "masan_redis_errors",
]
MODEL = ModelRef(name="tiny", version="1", digest="a" * 64)


def exposition(service: Service) -> str:
    return service.client.get("/metrics").text


def promtool(text: str) -> None:
    """Fails with what promtool finds; skips without it."""
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("needs promtool, of Debian's package prometheus")
    done = subprocess.run([path, "check", "metrics"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def series(text: str) -> set[str]:
    """Names with labels, without values."""
    return {line.rsplit(" ", 1)[0] for line in text.splitlines() if line and not line.startswith("#")}


def run_job(service: Service, number: int, **changes: Any) -> None:
    """A job of one image, from its record to its end, by the ledger alone."""
    job_id = f"job_{number:026d}"
    part = ClassCount(class_slug=CLASSES[number % 2], class_index=0, count=1)
    spec = JobSpec(job_id=job_id, model=MODEL, parts=(part,), seed=number, chunk_images=4)
    now = service.clock()
    write_job(service.redis, spec, now=now, expires_at=now + 100)
    service.ledger.start(job_id, now=now)
    fields: dict[str, Any] = {
        "chunk_index": 0,
        "class_slug": part.class_slug,
        "count": 1,
        "shard_sha256": "b" * 64,
        "shard_bytes": 900,
        "seconds": 1.0,
    }
    service.ledger.finish_chunk(job_id, "tiny@1", ChunkResult(**fields | changes), now=now + number)


def test_every_family_is_there_with_its_help(service: Service) -> None:
    of_service = {family.name: family for family in text_string_to_metric_families(exposition(service))}
    text = generate_latest(WorkerMetrics(torch.device("cpu")).registry).decode()
    of_worker = {family.name: family for family in text_string_to_metric_families(text)}

    assert [name for name in OF_THE_SERVICE if name not in of_service] == []
    assert [name for name in OF_THE_WORKER if name not in of_worker] == []
    assert [f.name for f in (*of_service.values(), *of_worker.values()) if not f.documentation] == []


def test_promtool_finds_no_fault_with_the_service(service: Service) -> None:
    service.finished_job(n=5)
    service.client.get("/nowhere")

    promtool(exposition(service))


def test_promtool_finds_no_fault_with_a_worker() -> None:
    metrics = WorkerMetrics(torch.device("cpu"))
    metrics.model_info.labels("tiny", "tiny@1", "a" * 16, "eager").set(1)
    metrics.busy_seconds.inc()

    promtool(generate_latest(metrics.registry).decode())


def test_what_never_happened_is_there_at_zero(service: Service) -> None:
    there = series(exposition(service))

    for slug in CLASSES:
        for reason in RejectionReason:
            assert f'masan_images_rejected_total{{class="{slug}",reason="{reason}"}}' in there
    for priority in PRIORITIES:
        assert f'masan_jobs_created_total{{class="{MIXED}",priority="{priority}"}}' in there
        assert f'masan_job_duration_seconds_count{{priority="{priority}"}}' in there
    for why in ("age", "bytes", "deleted"):
        assert f'masan_result_expired_total{{backend="file",reason="{why}"}}' in there
    assert 'masan_admission_rejections_total{reason="store_full"}' in there
    assert 'masan_redis_errors_total{operation="queue"}' in there


def test_jobs_are_timed_by_priority(service: Service) -> None:
    job_id = str(service.submit(n=4)["id"])
    service.clock.offset_s = 20
    service.finish(job_id)

    labels = 'le="30.0",priority="interactive"'
    assert service.metric(f"masan_job_queue_wait_seconds_bucket{{{labels}}}") == 1
    assert service.metric('masan_job_queue_wait_seconds_bucket{le="10.0",priority="interactive"}') == 0
    assert service.metric('masan_job_duration_seconds_sum{priority="interactive"}') == pytest.approx(
        20, abs=5
    )
    assert service.metric('masan_job_time_to_first_image_seconds_count{priority="interactive"}') == 1
    assert service.metric('masan_job_time_to_first_image_seconds_count{priority="batch"}') == 0


def test_images_that_the_gate_replaced_are_counted_by_reason(service: Service) -> None:
    run_job(service, 1, rejected=3, rejections={"luma": 2, "memorized": 1})

    assert service.metric('masan_images_rejected_total{class="pro_b",reason="luma"}') == 2
    assert service.metric('masan_images_rejected_total{class="pro_b",reason="memorized"}') == 1
    assert service.metric('masan_images_rejected_total{class="benign",reason="luma"}') == 0


def test_series_do_not_grow_with_jobs(service: Service) -> None:
    run_job(service, 0)
    run_job(service, 1)
    before = series(exposition(service))

    for number in range(2, 300):
        run_job(service, number)

    after = exposition(service)
    assert series(after) == before
    assert service.metric('masan_jobs_completed_total{class="pro_b",outcome="succeeded"}') == 150
    assert not re.search("job_0|seed", after)


def test_a_removed_checkpoint_leaves_no_series(service: Service) -> None:
    service.redis.hset(keys.COUNTERS, mapping={"images:pro_b:tiny@0": 5, "images:pro_b:tiny@1": 6})

    assert service.metric('masan_images_generated_total{class="pro_b",model_version="tiny@1"}') == 6
    assert "tiny@0" not in exposition(service)


def test_a_store_that_does_not_tell_hides_nothing() -> None:
    (images,) = [
        family
        for family in counter_families({"images:a:m@1": "5", "odd": "1"}, served=(), known=(), backend="s3")
        if family.name == "masan_images_generated"
    ]

    assert [(sample.labels, sample.value) for sample in images.samples] == [
        ({"class": "a", "model_version": "m@1"}, 5)
    ]


def test_a_refused_connection_to_redis_is_counted(settings: ServiceSettings, service: Service) -> None:
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"})
    with running(away, Clock(), service.checkpoint) as alone:
        first, second = (exposition(alone) for _ in range(2))

    assert "masan_redis_up 0.0" in first
    assert not re.search(r'masan_redis_errors_total\{operation="ledger"\} 0\.0', second)


def test_a_canceled_job_has_no_duration(service: Service) -> None:
    job_id = str(service.submit(n=4)["id"])
    service.ledger.transition(
        job_id, JobStatus.CANCELED, allowed_from=(JobStatus.QUEUED,), now=service.clock()
    )

    assert service.metric(f'masan_job_duration_seconds_count{{priority="{Priority.INTERACTIVE}"}}') == 0
