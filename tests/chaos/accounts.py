"""What may be left once all jobs have ended: nothing else in Redis, nothing else in the result folder."""

from pathlib import Path
from typing import cast

from redis import Redis

from service.storage.keeper import OWNER, SWEPT_AT
from worker.contract import keys

_QUEUE = f"rq:queue:{keys.CHUNK_QUEUE}"
_INTERMEDIATE = f"rq:queue:{keys.CHUNK_QUEUE}:intermediate"
_STARTED = f"rq:wip:{keys.CHUNK_QUEUE}"
_FLEET = frozenset(
    {
        keys.JOB_INDEX,
        keys.COUNTERS,
        keys.WORKERS,
        keys.EXPIRY_INDEX,
        keys.tenant_index_key(""),
        OWNER,
        SWEPT_AT,
        "rq:clean_groups",
        "rq:finished:chunks",
        "rq:failed:chunks",
        "rq:queues",
        "rq:workers",
        "rq:workers:chunks",
    }
)
"""One key each, however many jobs there were; what stands in them is of a job or a worker."""


def unaccounted_keys(redis: "Redis") -> list[str]:
    """Keys that belong to no job in the index, would never go away, or should be empty by now."""
    job_ids = cast("list[str]", redis.zrange(keys.JOB_INDEX, 0, -1))
    of_jobs = {keys.job_key(job_id) for job_id in job_ids}
    bad = []
    for key in cast("list[str]", list(redis.scan_iter("*", count=1000))):
        is_of_job = key.startswith("masan:job:") and ":".join(key.split(":")[:3]) in of_jobs
        if key in _FLEET or is_of_job or redis.ttl(key) != -1:
            continue
        bad.append(key)
    return sorted(bad)


def unfinished(redis: "Redis") -> dict[str, int]:
    """Lists that must be empty once every job has ended, as far as they are not."""
    sizes = {
        _QUEUE: redis.llen(_QUEUE),
        _INTERMEDIATE: redis.llen(_INTERMEDIATE),
        _STARTED: redis.zcard(_STARTED),
        keys.ACTIVE_JOBS: redis.zcard(keys.ACTIVE_JOBS),
    }
    return {name: size for name, size in sizes.items() if size}


def unaccounted_files(redis: "Redis", results: Path) -> list[str]:
    """Files that no finished chunk of a known job accounts for, and those of finished chunks that are
    missing."""
    expected = set()
    for job_id in cast("list[str]", redis.zrange(keys.JOB_INDEX, 0, -1)):
        for index in cast("list[str]", redis.hkeys(keys.done_key(job_id))):
            expected |= {keys.shard_path(job_id, int(index)), keys.sidecar_path(job_id, int(index))}
    # What a killed writer left half-written has a dotted name, and is swept.
    files = (path for path in results.rglob("*") if path.is_file() and not path.name.startswith("."))
    found = {str(path.relative_to(results)) for path in files}
    return sorted(f"left over: {path}" for path in found - expected) + sorted(
        f"missing: {path}" for path in expected - found
    )
