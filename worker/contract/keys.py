"""Every Redis key and queue name that service and worker share."""

CHUNK_QUEUE = "chunks"
CHUNK_PATH = "worker.chunks.make_chunk"
"""Dotted name by which the service enqueues work it cannot import."""

JOB_INDEX = "masan:jobs"
"""Sorted set of ids of jobs that are listed, by creation time, epoch seconds."""

EXPIRY_INDEX = "masan:jobs:expiry"
"""Sorted set of ids of all jobs that may have files in the result store, by when those are to be deleted."""

COUNTERS = "masan:counters"
"""Hash of fleet-wide counters, bumped only by the done-once fence: `images:{class}:{name@version}`,
`rejected:{class}:{reason}`, `jobs:{outcome}:{class}`, `chunks:{outcome}`. Besides, what went wrong and
was tried again: `chunk_retries:{reason}`; attempts to deliver: `webhooks:{outcome}`. From `tallies`:
`seconds:{what}:{priority}:{bucket or sum}`, `image_bytes:{name@version}:{encoding}` of `images_stored:...`,
and `result_bytes`, which goes down again when files are deleted."""

LOAD = "masan:load"
"""Hash of what all jobs that have not ended still ask for; see `load`. Gone while there are none."""

ACTIVE_JOBS = "masan:jobs:active"
"""Sorted set of ids of jobs that may still need work, by creation time; the reaper drops finished ones."""

FLEET = "masan:fleet"
"""What the live workers are together, as `submit_script` last summed it up; gone within seconds."""

DRAINING = "masan:draining"
"""There while no new job is to be accepted; holds when that began, epoch seconds."""

WORKERS = "masan:workers"
"""Hash of worker name -> JSON {state, device, model, version, digest, images_per_second, heartbeat, pid}."""

SERVED_QUALITY = "masan:served"
"""Hash of `{class}:{name@version}` -> JSON {kid, kid_sd, n, at} of the newest images that were served."""

REPORT_QUEUE = "reports"
REPORT_PATH = "masan.report_maker.make_report"
"""Dotted name of what makes a report, in a process that may import training."""

ACTIVE_REPORTS = "masan:reports:active"
"""Sorted set of ids of reports that are queued or running, by creation time, epoch seconds."""

REPORT_WORKERS = "masan:report-workers"
"""As WORKERS, of processes that make reports; `has_data` tells whether one has a dataset of its own."""

WEBHOOK_QUEUE = "webhooks"
WEBHOOK_PATH = "masan.webhook_sender.deliver_webhook"
"""Dotted name of what delivers a webhook."""

WEBHOOKS_DUE = "masan:webhooks:due"
"""Sorted set of ids of jobs whose end is still to be told, by when to try next, epoch seconds."""

EVENTS_MAX_LENGTH = 2_000
WORKER_TIMEOUT_S = 15.0
"""A worker whose heartbeat is older is not counted as live."""


def tenant_index_key(tenant: str) -> str:
    """As JOB_INDEX, of the jobs of one API key ('' without keys)."""
    return f"masan:jobs:of:{tenant}"


def job_key(job_id: str) -> str:
    """Hash: status, spec, total, done, rejected, chunk_count, chunks_done, next_chunk, created_at,
    started_at, finished_at, expires_at, deadline, attempt, priority, encoding, stored_bytes, error;
    `collecting` while its files are being deleted, `collected` after that, `deleted` once its owner has asked
    for it; `parquet_sha256` and `parquet_bytes` of a file made of its shards."""
    return f"masan:job:{job_id}"


def done_key(job_id: str) -> str:
    """Hash of chunk index -> ChunkResult JSON; written once per chunk (the fence)."""
    return f"masan:job:{job_id}:done"


def losses_key(job_id: str) -> str:
    """Hash of chunk index -> how often it was found lost."""
    return f"masan:job:{job_id}:losses"


def events_key(job_id: str) -> str:
    """Stream of {event, data}; its ids are the SSE ids."""
    return f"masan:job:{job_id}:events"


def certificate_key(job_id: str) -> str:
    """The signed certificate of a succeeded job; written once."""
    return f"masan:job:{job_id}:certificate"


def report_key(report_id: str) -> str:
    """Hash: status, request, created_at, started_at, finished_at, attempt, losses, stage, done, total,
    error."""
    return f"masan:report:{report_id}"


def unfinished_report_key(model_reference: str, n: int) -> str:
    """Id of the report of that checkpoint and size that is queued or running."""
    return f"masan:reports:of:{model_reference}:{n}"


def report_rq_id(report_id: str, losses: int) -> str:
    """RQ job id of a report; another one each time that it is enqueued again because it was lost."""
    return f"{report_id}-{losses}"


def webhook_key(job_id: str) -> str:
    """Hash: job_id, url, secret, events, state, event, ended_at, turn, claim, attempts, body, reason,
    settled_at."""
    return f"masan:webhook:{job_id}"


def webhook_rq_id(job_id: str, claim: int) -> str:
    """RQ job id of one attempt to deliver; another one each time that it is enqueued."""
    return f"webhook-{job_id}-{claim}"


def chunk_job_id(job_id: str, chunk_index: int, attempt: int = 1) -> str:
    """RQ job id of a chunk."""
    return f"{job_id}-{chunk_index}-{attempt}"


def shard_path(job_id: str, chunk_index: int) -> str:
    """Path of a chunk's tar below the result store's root; its sidecar ends in `.jsonl` instead."""
    return f"{job_id}/{chunk_index:05d}.tar"


def parquet_path(job_id: str) -> str:
    """Path of the parquet file that the service makes of all shards."""
    return f"{job_id}/result.parquet"


def sidecar_path(job_id: str, chunk_index: int) -> str:
    """One ImageRow per line, in index order."""
    return f"{job_id}/{chunk_index:05d}.jsonl"
