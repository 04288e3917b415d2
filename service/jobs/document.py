"""A job as its answers show it, straight from its record; `schemas.JobBody` describes it to clients."""

from datetime import UTC, datetime
from typing import Any, Final

from service.jobs.record import JobRecord
from worker.contract.messages import JobStatus

RETRYABLE: Final = frozenset({JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})
"""States of a job that may be retried."""


def job_document(job: JobRecord, *, queue_position: int | None, now: float) -> dict[str, Any]:
    """Plain values, and times as datetimes. now: epoch seconds."""
    spec, status, model, path = job.spec, job.status, job.spec.model, f"/jobs/{job.job_id}"
    is_gone = job.is_gone(now)
    has_images = job.done > 0 and not is_gone
    is_ready = status is JobStatus.SUCCEEDED and not is_gone
    return {
        "id": job.job_id,
        "status": status,
        "class": spec.class_slug,
        "mix": {part.class_slug: part.count for part in spec.parts},
        "n": spec.total,
        "seed": str(spec.seed),
        "truncation": spec.truncation,
        "walk_to_seed": str(spec.walk.to_seed) if spec.walk else None,
        "format": spec.format,
        "image_format": spec.encoding.format,
        "quality": spec.encoding.quality,
        "gate": spec.gate,
        "priority": spec.priority,
        "metadata": spec.metadata,
        "model": {"name": model.name, "version": model.version, "digest": f"sha256:{model.digest}"},
        "progress": _progress(job, queue_position, now),
        "created_at": utc_time(job.created_at),
        "started_at": utc_time(job.started_at) if job.started_at else None,
        "finished_at": utc_time(job.finished_at) if job.finished_at else None,
        "expires_at": utc_time(job.expires_at),
        "deadline_at": utc_time(job.deadline) if job.deadline else None,
        "attempt": job.attempt,
        "error": {name: job.error[name] for name in ("code", "message")} if job.error else None,
        "links": {
            "self": path,
            "events": f"{path}/events",
            "cancel": None if status.is_final else f"{path}/cancel",
            "retry": f"{path}/retry" if status in RETRYABLE else None,
            "shards": f"{path}/shards" if has_images else None,
            "images": f"{path}/images" if has_images else None,
            "result": f"{path}/result" if is_ready else None,
            "certificate": f"{path}/certificate" if is_ready else None,
        },
    }


def _progress(job: JobRecord, queue_position: int | None, now: float) -> dict[str, Any]:
    total = job.spec.total
    speed = None
    if job.started_at is not None and job.done:
        elapsed = (job.finished_at or now) - job.started_at
        speed = job.done / elapsed if elapsed > 0 else None
    eta = (total - job.done) / speed if speed and not job.status.is_final else None
    return {
        "done": job.done,
        "rejected": job.rejected,
        "total": total,
        "percent": round(100 * job.done / total, 1),
        "images_per_second": None if speed is None else round(speed, 2),
        "eta_seconds": None if eta is None else round(eta, 1),
        "queue_position": queue_position,
    }


def utc_time(epoch_s: float) -> datetime:
    """Seconds since the epoch as answers show them."""
    return datetime.fromtimestamp(epoch_s, UTC)
