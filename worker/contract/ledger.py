"""The job ledger in Redis: every change of a job's state is one atomic script.

RQ delivers a chunk at least once and tells late when a worker died; the ledger makes that harmless. A
chunk is marked done once, whoever reports it; counters move only with that mark; a job reaches exactly one
final state, and its webhook is announced with it. Times are epoch seconds, given by the caller.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, cast

from redis import Redis

from worker.contract import keys
from worker.contract.messages import ChunkResult, JobSpec, JobStatus
from worker.contract.webhook_ledger import ANNOUNCE

# KEYS: job, events, expiry index, then the indexes that list it. ARGV: job id, now, expiry, events limit,
# flattened job hash.
_CREATE: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
for i = 4, #KEYS do redis.call('ZADD', KEYS[i], ARGV[2], ARGV[1]) end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'event', 'status', 'data', '{"status":"queued"}')
return 1
"""

# KEYS: job, events. ARGV: now, events limit. Returns the job's status after the call ('' if unknown).
_START: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return '' end
if status == 'queued' then
  redis.call('HSET', KEYS[1], 'status', 'running', 'started_at', ARGV[1])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', 'status', 'data', '{"status":"running"}')
  return 'running'
end
return status
"""

# KEYS: job, done, events, counters, webhook, webhooks due. ARGV: chunk index, result JSON, count, rejected,
# now, events limit, class slug, model reference, then pairs of rejection reason and count. Returns
# {first (0/1), status, next chunk or -1}.
_FINISH_CHUNK: Final = (
    ANNOUNCE
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {0, '', -1} end
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then return {0, status, -1} end
local done = redis.call('HINCRBY', KEYS[1], 'done', ARGV[3])
local rejected = redis.call('HINCRBY', KEYS[1], 'rejected', ARGV[4])
local chunks_done = redis.call('HINCRBY', KEYS[1], 'chunks_done', 1)
redis.call('HINCRBY', KEYS[4], 'images:' .. ARGV[7] .. ':' .. ARGV[8], ARGV[3])
for i = 9, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[4], 'rejected:' .. ARGV[7] .. ':' .. ARGV[i], ARGV[i + 1])
end
redis.call('HINCRBY', KEYS[4], 'chunks:done', 1)
local total = tonumber(redis.call('HGET', KEYS[1], 'total'))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'event', 'shard', 'data', ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'event', 'progress', 'data',
  '{"done":' .. done .. ',"rejected":' .. rejected .. ',"total":' .. total .. '}')
if status == 'queued' or status == 'running' then
  local chunk_count = tonumber(redis.call('HGET', KEYS[1], 'chunk_count'))
  if chunks_done == chunk_count then
    redis.call('HSET', KEYS[1], 'status', 'succeeded', 'finished_at', ARGV[5])
    redis.call('HINCRBY', KEYS[4], 'jobs:succeeded:' .. redis.call('HGET', KEYS[1], 'class'), 1)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'event', 'done',
      'data', '{"status":"succeeded"}')
    announce(KEYS[5], KEYS[6], 'succeeded', ARGV[5])
    return {1, 'succeeded', -1}
  end
  local next_chunk = tonumber(redis.call('HGET', KEYS[1], 'next_chunk'))
  while next_chunk < chunk_count and redis.call('HEXISTS', KEYS[2], next_chunk) == 1 do
    next_chunk = next_chunk + 1  -- made before a retry
  end
  if next_chunk < chunk_count then
    redis.call('HSET', KEYS[1], 'next_chunk', next_chunk + 1)
    return {1, status, next_chunk}
  end
  redis.call('HSET', KEYS[1], 'next_chunk', next_chunk)
end
return {1, status, -1}
"""
)

# KEYS: job, events, counters, webhook, webhooks due. ARGV: new status, now, error JSON, events limit, allowed
# old statuses... Returns the job's status after the call ('' if unknown); the change happens only from an
# allowed status.
_TRANSITION: Final = (
    ANNOUNCE
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return '' end
for i = 5, #ARGV do
  if status == ARGV[i] then
    redis.call('HSET', KEYS[1], 'status', ARGV[1], 'error', ARGV[3])
    local final = ARGV[1] ~= 'canceling'
    if final then
      redis.call('HSET', KEYS[1], 'finished_at', ARGV[2])
      redis.call('HINCRBY', KEYS[3], 'jobs:' .. ARGV[1] .. ':' .. redis.call('HGET', KEYS[1], 'class'), 1)
      announce(KEYS[4], KEYS[5], ARGV[1], ARGV[2])
    end
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'event', final and 'done' or 'status',
      'data', '{"status":"' .. ARGV[1] .. '"}')
    return ARGV[1]
  end
end
return status
"""
)

# KEYS: job, done, events. ARGV: new expiry, window, events limit, new deadline ('' for none). Returns
# {0, status} if it cannot be retried or has all it needs, else {1, attempt, chunk indices to enqueue now...}.
_RETRY: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {0, ''} end
if status ~= 'failed' and status ~= 'canceled' and status ~= 'expired' then return {0, status} end
local chunk_count = tonumber(redis.call('HGET', KEYS[1], 'chunk_count'))
if redis.call('HLEN', KEYS[2]) == chunk_count then return {0, status} end
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
local answer, next_chunk = {1, attempt}, 0
while next_chunk < chunk_count and #answer - 2 < tonumber(ARGV[2]) do
  if redis.call('HEXISTS', KEYS[2], next_chunk) == 0 then answer[#answer + 1] = next_chunk end
  next_chunk = next_chunk + 1
end
redis.call('HSET', KEYS[1], 'status', 'queued', 'next_chunk', next_chunk, 'expires_at', ARGV[1], 'error', '',
  'deadline', ARGV[4])
redis.call('HDEL', KEYS[1], 'started_at', 'finished_at')
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'event', 'status', 'data', '{"status":"queued"}')
return answer
"""


@dataclass(frozen=True, slots=True)
class ChunkOutcome:
    """What `finish_chunk` found. `next_chunk` is the chunk to enqueue now, if any."""

    is_first: bool
    status: JobStatus | None
    next_chunk: int | None


@dataclass(frozen=True, slots=True)
class RetryOutcome:
    """What `retry` did. attempt: 0 if nothing, for the job's state forbids it. chunks: to enqueue now."""

    status: JobStatus | None
    attempt: int = 0
    chunks: tuple[int, ...] = ()


class JobLedger:
    """Reads and changes job records. `redis` must decode responses to str."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self._create = redis.register_script(_CREATE)
        self._start = redis.register_script(_START)
        self._finish_chunk = redis.register_script(_FINISH_CHUNK)
        self._transition = redis.register_script(_TRANSITION)
        self._retry = redis.register_script(_RETRY)

    def create(self, spec: JobSpec, *, now: float, expires_at: float) -> bool:
        """Write a queued job whose first `window` chunks the caller enqueues. False if the id exists."""
        first_window = min(spec.window, spec.chunk_count)
        record: dict[str, str | int | float] = {
            "status": JobStatus.QUEUED,
            "spec": spec.model_dump_json(),
            "class": spec.parts[0].class_slug if len(spec.parts) == 1 else "mixed",
            "total": spec.total,
            "done": 0,
            "rejected": 0,
            "chunk_count": spec.chunk_count,
            "chunks_done": 0,
            "next_chunk": first_window,
            "created_at": now,
            "expires_at": expires_at,
            "deadline": "" if spec.deadline is None else spec.deadline,
            "attempt": 1,
        }
        flat = [item for pair in record.items() for item in pair]
        created = self._create(
            keys=[
                keys.job_key(spec.job_id),
                keys.events_key(spec.job_id),
                keys.EXPIRY_INDEX,
                *_list_keys(spec),
            ],
            args=[spec.job_id, now, expires_at, keys.EVENTS_MAX_LENGTH, *flat],
        )
        return bool(created)

    def start(self, job_id: str, *, now: float) -> JobStatus | None:
        """Mark a queued job running. Returns its status now, None for an unknown job."""
        status = self._start(
            keys=[keys.job_key(job_id), keys.events_key(job_id)], args=[now, keys.EVENTS_MAX_LENGTH]
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
            ],
            args=[to, now, json.dumps(error) if error else "", keys.EVENTS_MAX_LENGTH, *allowed_from],
        )
        return JobStatus(status) if status else None

    def retry(self, job_id: str, *, window: int, expires_at: float, deadline: float | None) -> RetryOutcome:
        """Queue a failed, canceled or expired job again, for the chunks that are missing."""
        done, *rest = cast(
            "tuple[Any, ...]",
            self._retry(
                keys=[keys.job_key(job_id), keys.done_key(job_id), keys.events_key(job_id)],
                args=[expires_at, window, keys.EVENTS_MAX_LENGTH, "" if deadline is None else deadline],
            ),
        )
        if not done:
            return RetryOutcome(JobStatus(rest[0]) if rest[0] else None)
        return RetryOutcome(JobStatus.QUEUED, int(rest[0]), tuple(int(index) for index in rest[1:]))

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


def _list_keys(spec: JobSpec) -> list[str]:
    """The indexes that a job is listed in."""
    return [keys.JOB_INDEX, keys.tenant_index_key(spec.tenant)] if spec.is_listed else []
