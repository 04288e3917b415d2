"""Records of reports in Redis: every change of state is one atomic script.

One report of a checkpoint and size is unfinished at a time. A worker holds an attempt; whoever holds an
older one (its worker was taken for dead) can neither tell progress nor end the report. A report reaches
exactly one final state. Times are epoch seconds, given by the caller.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from redis import Redis

from worker.contract import keys
from worker.contract.failures import Failure
from worker.contract.messages import ReportRequest, ReportStatus

RECORD_TTL_S: Final = 7 * 86_400
"""How long the record of a finished report can be read."""

# KEYS: pointer, record, active set. ARGV: id, now, prefix of record keys, flattened record. Returns the id of
# the unfinished report: this one, or the one there was.
_CREATE: Final = """
local there = redis.call('GET', KEYS[1])
if there then
  local status = redis.call('HGET', ARGV[3] .. there, 'status')
  if status == 'queued' or status == 'running' then return there end
end
redis.call('HSET', KEYS[2], unpack(ARGV, 4))
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
"""

# KEYS: record. ARGV: now. Returns the attempt, 0 for a report that is unknown or finished.
_START: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'running', 'stage', '', 'done', 0, 'total', 0)
redis.call('HSETNX', KEYS[1], 'started_at', ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'attempt', 1)
"""

# KEYS: record. ARGV: attempt, then field and value pairs. Returns 1 if the attempt is still the running one.
_UPDATE: Final = """
if redis.call('HGET', KEYS[1], 'status') ~= 'running' then return 0 end
if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
"""

# KEYS: record. Returns how often the report has been lost, 0 if it is finished.
_LOSE: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'status', 'queued')
return redis.call('HINCRBY', KEYS[1], 'losses', 1)
"""

# KEYS: record, pointer, active set. ARGV: id, attempt or '', status, now, error JSON, seconds to keep it.
# Returns 1 if this call ended the report.
_END: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'queued' and status ~= 'running' then return 0 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'finished_at', ARGV[4], 'error', ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A report as the ledger knows it. stage, done, total: what its worker is at, and how far."""

    request: ReportRequest
    status: ReportStatus
    created_at: float
    started_at: float | None
    finished_at: float | None
    attempt: int
    losses: int
    stage: str
    done: int
    total: int
    error: dict[str, Any] | None

    @classmethod
    def from_hash(cls, record: dict[str, str]) -> Self:
        return cls(
            request=ReportRequest.model_validate_json(record["request"]),
            status=ReportStatus(record["status"]),
            created_at=float(record["created_at"]),
            started_at=float(record["started_at"]) if record.get("started_at") else None,
            finished_at=float(record["finished_at"]) if record.get("finished_at") else None,
            attempt=int(record["attempt"]),
            losses=int(record["losses"]),
            stage=record.get("stage", ""),
            done=int(record.get("done", 0)),
            total=int(record.get("total", 0)),
            error=json.loads(record["error"]) if record.get("error") else None,
        )

    @property
    def report_id(self) -> str:
        return self.request.report_id

    @property
    def rq_id(self) -> str:
        """Of the RQ job that makes it."""
        return keys.report_rq_id(self.report_id, self.losses)


class ReportLedger:
    """Reads and changes records of reports. `redis` must decode responses to str."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self._create = redis.register_script(_CREATE)
        self._start = redis.register_script(_START)
        self._update = redis.register_script(_UPDATE)
        self._lose = redis.register_script(_LOSE)
        self._end = redis.register_script(_END)

    def create(self, request: ReportRequest, *, now: float) -> str:
        """Write a queued report, which the caller enqueues; or the id of the one that is unfinished."""
        record: dict[str, str | int | float] = {
            "status": ReportStatus.QUEUED,
            "request": request.model_dump_json(),
            "created_at": now,
            "attempt": 0,
            "losses": 0,
        }
        flat = [item for pair in record.items() for item in pair]
        report_id = self._create(
            keys=[_pointer(request), keys.report_key(request.report_id), keys.ACTIVE_REPORTS],
            args=[request.report_id, now, keys.report_key(""), *flat],
        )
        return cast("str", report_id)

    def record(self, report_id: str) -> ReportRecord | None:
        """None for an unknown report."""
        record = cast("dict[str, str]", self.redis.hgetall(keys.report_key(report_id)))
        return ReportRecord.from_hash(record) if record else None

    def active(self) -> list[ReportRecord]:
        """Reports that are queued or running, oldest first."""
        report_ids = cast("list[str]", self.redis.zrange(keys.ACTIVE_REPORTS, 0, -1))
        records = (self.record(report_id) for report_id in report_ids)
        return [record for record in records if record is not None]

    def start(self, report_id: str, *, now: float) -> int | None:
        """Take a report: the attempt to show from now on, None for one that is unknown or finished."""
        return int(cast("int", self._start(keys=[keys.report_key(report_id)], args=[now]))) or None

    def tell(self, report_id: str, attempt: int, *, stage: str, done: int, total: int) -> bool:
        """Note progress. False if the attempt is not the running one any more."""
        return self._change(report_id, attempt, "stage", stage, "done", done, "total", total)

    def give_back(self, report_id: str, attempt: int) -> bool:
        """Back into the queue, where the caller puts it. False if the attempt is not the running one."""
        return self._change(report_id, attempt, "status", ReportStatus.QUEUED)

    def lose(self, report_id: str) -> int:
        """Count a loss; who held the report holds it no more. How often it was lost, 0 if it is finished."""
        return int(cast("int", self._lose(keys=[keys.report_key(report_id)])))

    def succeed(self, report_id: str, attempt: int, *, now: float) -> bool:
        """False if the attempt is not the running one any more."""
        return self._finish(report_id, ReportStatus.SUCCEEDED, now, attempt=attempt)

    def fail(self, report_id: str, failure: Failure, *, now: float, attempt: int | None = None) -> bool:
        """attempt: None fails it whoever holds it. False if it was final, or held by another."""
        return self._finish(report_id, ReportStatus.FAILED, now, attempt=attempt, error=failure)

    def _change(self, report_id: str, attempt: int, *pairs: str | int) -> bool:
        return bool(self._update(keys=[keys.report_key(report_id)], args=[attempt, *pairs]))

    def _finish(
        self,
        report_id: str,
        status: ReportStatus,
        now: float,
        *,
        attempt: int | None,
        error: Failure | None = None,
    ) -> bool:
        record = self.record(report_id)
        if record is None:
            return False
        ended = self._end(
            keys=[keys.report_key(report_id), _pointer(record.request), keys.ACTIVE_REPORTS],
            args=[
                report_id,
                "" if attempt is None else attempt,
                status,
                now,
                json.dumps(error._asdict()) if error else "",
                RECORD_TTL_S,
            ],
        )
        return bool(ended)


def _pointer(request: ReportRequest) -> str:
    return keys.unfinished_report_key(request.model.reference, request.n)
