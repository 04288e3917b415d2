"""The jobs that have not ended, as far as those who watch over all of them need to know: many at a time."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self, cast

from redis import Redis

from worker.contract import keys
from worker.contract.messages import JobStatus

_BLOCK: Final = 500
_FORGET_UNKNOWN_S: Final = 60.0

# KEYS: none that are known before. ARGV: prefix of job keys, then job ids. Returns for each status, next
# chunk, attempt, expiry, priority, images in all and done, and deadline, or '' for a job without a record.
_ROWS: Final = """
local rows = {}
for i = 2, #ARGV do
  local row = redis.call('HMGET', ARGV[1] .. ARGV[i], 'status', 'next_chunk', 'attempt', 'expires_at',
    'priority', 'total', 'done', 'deadline')
  for field = 2, #row do row[field] = row[field] or '' end
  rows[i - 1] = row[1] and table.concat(row, ' ') or ''
end
return rows
"""


@dataclass(frozen=True, slots=True)
class ActiveJob:
    """created_at: or when it was retried. status: None for one without a record. images: still to be made.

    ends_by: when it expires if it has not ended before.
    """

    job_id: str
    created_at: float
    status: JobStatus | None
    next_chunk: int
    attempt: int
    priority: str
    images: int
    ends_by: float

    @classmethod
    def parse(cls, job_id: str, created_at: float, row: str) -> Self:
        if not row:
            return cls(job_id, created_at, None, 0, 0, "", 0, math.inf)
        status, next_chunk, attempt, expires_at, priority, total, done, deadline = row.split(" ")
        return cls(
            job_id,
            created_at,
            JobStatus(status),
            int(next_chunk),
            int(attempt),
            priority,
            int(total or 0) - int(done or 0),
            min(float(expires_at), float(deadline or math.inf)),
        )

    @property
    def is_unfinished(self) -> bool:
        return self.status is not None and not self.status.is_final

    def is_over(self, now: float) -> bool:
        """Whether it need not be looked at again: it has ended, or was never written."""
        if self.status is None:
            return now - self.created_at >= _FORGET_UNKNOWN_S
        return self.status.is_final


def active_jobs(redis: Redis) -> Iterator[list[ActiveJob]]:
    """All that were not ended when last looked at, oldest first, in blocks of one round trip each."""
    rows = redis.register_script(_ROWS)
    listed = cast("list[tuple[str, float]]", redis.zrange(keys.ACTIVE_JOBS, 0, -1, withscores=True))
    for start in range(0, len(listed), _BLOCK):
        block = listed[start : start + _BLOCK]
        found = cast("list[str]", rows(args=[keys.job_key(""), *(job_id for job_id, _ in block)]))
        yield [ActiveJob.parse(*known, row) for known, row in zip(block, found, strict=True)]
