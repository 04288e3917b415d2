"""The job ledger in Redis: every change of a job's state is one atomic script.

RQ delivers a chunk at least once and tells late when a worker died; the ledger makes that harmless. A
chunk is marked done once, whoever reports it; counters move only with that mark; a job reaches exactly one
final state, and its webhook is announced with it. Times are epoch seconds, given by the caller.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis

from worker.contract import keys, ledger_scripts
from worker.contract.load import RECOUNT, load_label
from worker.contract.messages import ChunkResult, JobSpec, JobStatus
from worker.contract.tallies import encoding_label
from worker.contract.webhook_ledger import RECORD_TTL_S

_LAST_EVENTS_S: Final = 60
"""Who follows a job while it expires or is deleted can still be told its end, also after an outage."""


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """What `finish_chunk` found. `next_chunk` is the chunk to enqueue now, if any."""

    is_first: bool
    status: JobStatus | None
    next_chunk: int | None


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """What `retry` did. status: the job's by now. attempt: 0 if nothing was done, as its state forbids it.

    chunks: to enqueue now.
    """

    status: JobStatus | None
    attempt: int = 0
    chunks: tuple[int, ...] = ()


class JobLedger:
    """Reads and changes job records. `redis` must decode responses to str."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self._start = redis.register_script(ledger_scripts.START)
        self._finish_chunk = redis.register_script(ledger_scripts.FINISH_CHUNK)
        self._transition = redis.register_script(ledger_scripts.TRANSITION)
        self._retry = redis.register_script(ledger_scripts.RETRY)
        self._delete = redis.register_script(ledger_scripts.DELETE)
        self._expire_early = redis.register_script(ledger_scripts.EXPIRE_EARLY)
        self._collect = redis.register_script(ledger_scripts.COLLECT)
        self._recount = redis.register_script(RECOUNT)

    def start(self, job_id: str, *, now: float) -> JobStatus | None:
        """Mark a queued job running; one past its deadline expires instead.

        Returns its status now, None for an unknown job.
        """
        status = self._start(
            keys=[
                keys.job_key(job_id),
                keys.events_key(job_id),
                keys.COUNTERS,
                keys.webhook_key(job_id),
                keys.WEBHOOKS_DUE,
                keys.LOAD,
            ],
            args=[now, keys.EVENTS_MAX_LENGTH],
        )
        return JobStatus(status) if status else None

    def finish_chunk(
        self, job_id: str, model_reference: str, result: ChunkResult, *, now: float
    ) -> ChunkOutcome:
        """Mark a chunk done, once; the last one makes the job succeeded."""
        first, status, next_chunk = cast(
            "tuple[int, str, int]",
            self._finish_chunk(
                keys=[
                    keys.job_key(job_id),
                    keys.done_key(job_id),
                    keys.events_key(job_id),
                    keys.COUNTERS,
                    keys.webhook_key(job_id),
                    keys.WEBHOOKS_DUE,
                    keys.LOAD,
                ],
                args=[
                    result.chunk_index,
                    result.model_dump_json(),
                    result.count,
                    result.rejected,
                    now,
                    keys.EVENTS_MAX_LENGTH,
                    result.class_slug,
                    model_reference,
                    result.stored_bytes or result.shard_bytes,
                    *(item for pair in result.rejections.items() for item in pair),
                ],
            ),
        )
        return ChunkOutcome(
            is_first=bool(first),
            status=JobStatus(status) if status else None,
            next_chunk=None if next_chunk < 0 else next_chunk,
        )

    def transition(
        self,
        job_id: str,
        to: JobStatus,
        *,
        allowed_from: tuple[JobStatus, ...],
        now: float,
        error: dict[str, Any] | None = None,
    ) -> JobStatus | None:
        """Move a job to `to` if it is in one of `allowed_from`. Returns its status now, None if unknown."""
        status = self._transition(
            keys=[
                keys.job_key(job_id),
                keys.events_key(job_id),
                keys.COUNTERS,
                keys.webhook_key(job_id),
                keys.WEBHOOKS_DUE,
                keys.LOAD,
            ],
            args=[to, now, json.dumps(error) if error else "", keys.EVENTS_MAX_LENGTH, *allowed_from],
        )
        return JobStatus(status) if status else None

    def retry(
        self, spec: JobSpec, *, window: int, now: float, expires_at: float, deadline: float | None
    ) -> RetryOutcome:
        """Queue a failed, canceled or expired job again, for the chunks that are missing.

        Its losses are forgotten, and its next end is told to its webhook. Not while its files are being
        deleted.
        """
        job_id = spec.job_id
        done, status, *rest = cast(
            "tuple[Any, ...]",
            self._retry(
                keys=[
                    keys.job_key(job_id),
                    keys.done_key(job_id),
                    keys.events_key(job_id),
                    keys.COUNTERS,
                    keys.webhook_key(job_id),
                    keys.WEBHOOKS_DUE,
                    keys.losses_key(job_id),
                    keys.EXPIRY_INDEX,
                    keys.LOAD,
                    *_list_keys(spec),
                ],
                args=[
                    job_id,
                    now,
                    expires_at,
                    window,
                    keys.EVENTS_MAX_LENGTH,
                    "" if deadline is None else deadline,
                    int(expires_at - now + RECORD_TTL_S),
                    label_of(spec),
                    int(spec.at_front),
                ],
            ),
        )
        if not done:
            return RetryOutcome(JobStatus(status) if status else None)
        return RetryOutcome(JobStatus(status), int(rest[0]), tuple(int(index) for index in rest[1:]))

    def delete(self, job_id: str, *, now: float) -> bool:
        """Let a job's files and record be collected as soon as it has ended. False for an unknown job."""
        return bool(self._delete(keys=[keys.job_key(job_id), keys.EXPIRY_INDEX], args=[job_id, now]))

    def collect(self, job_id: str, *, now: float) -> bool:
        """Whether a job's files are to be deleted now; its chunks are then missing, before the files are.

        Call `forget` once they are deleted; until then it is asked again.
        """
        return bool(
            self._collect(
                keys=[keys.job_key(job_id), keys.done_key(job_id), keys.EXPIRY_INDEX, keys.COUNTERS],
                args=[job_id, now],
            )
        )

    def expire_early(self, job_id: str, *, now: float) -> int:
        """Let a finished job expire now, to make room. Returns the bytes that this will free, 0 for none."""
        freed = self._expire_early(keys=[keys.job_key(job_id), keys.EXPIRY_INDEX], args=[job_id, now])
        return int(cast("int", freed))

    def forget(self, spec: JobSpec, *, record_ttl_s: float) -> None:
        """Take a job whose files are deleted off all lists; its record stays a while, to answer for it.

        Its events go with the files: a job that is asked about now answers that it is gone.
        """
        job_id = spec.job_id
        made_room, deleted = self.redis.hmget(keys.job_key(job_id), "made_room", "deleted")
        reason = "deleted" if deleted else "bytes" if made_room else "age"
        with self.redis.pipeline() as pipeline:
            for key in (keys.job_key, keys.losses_key):
                pipeline.expire(key(job_id), int(record_ttl_s))
            pipeline.expire(keys.events_key(job_id), _LAST_EVENTS_S)
            pipeline.delete(keys.certificate_key(job_id))
            pipeline.hset(keys.job_key(job_id), "collected", 1)
            pipeline.hdel(keys.job_key(job_id), "collecting")
            for index in (keys.EXPIRY_INDEX, *_list_keys(spec)):
                pipeline.zrem(index, job_id)
            pipeline.hincrby(keys.COUNTERS, f"results_expired:{reason}", 1)
            pipeline.execute()

    def recount(self) -> int:
        """Sum up anew what the jobs that have not ended ask for; how many these are."""
        return int(cast("int", self._recount(keys=[keys.LOAD, keys.ACTIVE_JOBS], args=[keys.job_key("")])))

    def status(self, job_id: str) -> JobStatus | None:
        """The cheap read a worker makes between micro-batches."""
        status = cast("str | None", self.redis.hget(keys.job_key(job_id), "status"))
        return JobStatus(status) if status else None

    def record(self, job_id: str) -> dict[str, str] | None:
        """The whole job hash, None for an unknown job."""
        record = cast("dict[str, str]", self.redis.hgetall(keys.job_key(job_id)))
        return record or None

    def is_chunk_done(self, job_id: str, chunk_index: int) -> bool:
        """Whether somebody marked it done."""
        return bool(self.redis.hexists(keys.done_key(job_id), str(chunk_index)))

    def done_chunks(self, job_id: str) -> dict[int, ChunkResult]:
        """Finished chunks by index."""
        rows = cast("dict[str, str]", self.redis.hgetall(keys.done_key(job_id)))
        return {
            int(index): ChunkResult.model_validate_json(row)
            for index, row in sorted(rows.items(), key=lambda r: int(r[0]))
        }


def create_keys(spec: JobSpec) -> list[str]:
    """Where a new job is written, in the order of `create_job`."""
    job_id = spec.job_id
    return [
        keys.job_key(job_id),
        keys.events_key(job_id),
        keys.EXPIRY_INDEX,
        keys.LOAD,
        *_list_keys(spec),
    ]


def job_fields(spec: JobSpec, *, now: float, expires_at: float) -> list[str | int | float]:
    """The hash of a job that is queued for the first time but for its spec, names and values in turn."""
    chunk_count = spec.chunk_count
    return [
        *("status", JobStatus.QUEUED),
        *("class", spec.class_slug),
        *("total", spec.total),
        *("done", 0),
        *("rejected", 0),
        *("chunk_count", chunk_count),
        *("chunks_done", 0),
        *("next_chunk", min(spec.window, chunk_count)),
        *("created_at", now),
        *("expires_at", expires_at),
        *("deadline", "" if spec.deadline is None else spec.deadline),
        *("attempt", 1),
        *("priority", spec.priority),
        *("encoding", encoding_label(spec.encoding)),
    ]


def label_of(spec: JobSpec) -> str:
    """What its images are summed up under while it is not ended."""
    return load_label(spec.model.reference, encoding_label(spec.encoding))


def _list_keys(spec: JobSpec) -> list[str]:
    """The indexes that a job is listed in."""
    return [keys.JOB_INDEX, keys.tenant_index_key(spec.tenant)] if spec.is_listed else []
