"""Pages of jobs, newest first. A page begins after the place that the cursor of the page before names.

A place is a score with an id, so that jobs made in the same instant are neither skipped nor repeated, and a
job that goes away takes no place with it.
"""

import math
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self, cast

from redis import Redis

from service.access.api_keys import Scope
from service.access.key_ring import Principal
from service.http.parameters import unknown_cursor
from service.ids import JOB_ID_PATTERN
from service.jobs.lifecycle import JobService
from service.jobs.record import JobRecord
from worker.contract import keys
from worker.contract.messages import JobStatus

_BLOCK: Final = 100
"""Jobs read at once."""
_MAX_LOOKED_AT: Final = 2_000
"""A page of a rare kind ends after so many jobs, short or empty, with a cursor to go on from."""
_CURSOR: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last place a page came to. created_at: epoch seconds."""

    created_at: float
    job_id: str

    def __str__(self) -> str:
        packed = struct.pack(">d", self.created_at) + self.job_id.encode("ascii")
        return urlsafe_b64encode(packed).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidParameterError for one that this service did not give."""
        try:
            if not _CURSOR.match(text):
                raise ValueError(text)
            packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            cursor = cls(struct.unpack(">d", packed[:8])[0], packed[8:].decode("ascii"))
            if not math.isfinite(cursor.created_at) or not JOB_ID_PATTERN.match(cursor.job_id):
                raise ValueError(text)
            if str(cursor) != text:
                raise ValueError(text)
        except (ValueError, struct.error) as error:
            raise unknown_cursor() from error
        return cursor


@dataclass(frozen=True, slots=True)
class JobFilter:
    """None: any. A mix is of each of its classes."""

    status: JobStatus | None = None
    class_slug: str | None = None

    def passes(self, job: JobRecord) -> bool:
        if self.status is not None and job.status is not self.status:
            return False
        return self.class_slug is None or any(part.class_slug == self.class_slug for part in job.spec.parts)


@dataclass(frozen=True, slots=True)
class Page:
    """next_cursor: None at the end."""

    jobs: list[JobRecord]
    next_cursor: Cursor | None


def page_of_jobs(
    jobs: JobService, principal: Principal, wanted: JobFilter, *, after: Cursor | None, limit: int, now: float
) -> Page:
    """The principal's own jobs, of an administrator everybody's. Expired and deleted jobs are left out."""
    index = keys.JOB_INDEX if principal.may(Scope.ADMIN) else keys.tenant_index_key(principal.key_id or "")
    found: list[JobRecord] = []
    looked_at, last = 0, after
    for place, job in _walk(jobs, index, after):
        if len(found) == limit or looked_at == _MAX_LOOKED_AT:
            return Page(found, last)
        looked_at, last = looked_at + 1, place
        if job is not None and not job.is_gone(now) and wanted.passes(job):
            found.append(job)
    return Page(found, None)


def _walk(jobs: JobService, index: str, after: Cursor | None) -> Iterator[tuple[Cursor, JobRecord | None]]:
    """Places from the newest or from `after` on, each with its job if it still has a record."""
    while places := _places(jobs.redis, index, after):
        by_id = {job.job_id: job for job in jobs.records([place.job_id for place in places])}
        yield from ((place, by_id.get(place.job_id)) for place in places)
        after = places[-1]


def _places(redis: Redis, index: str, after: Cursor | None) -> list[Cursor]:
    """The next places, at most a block. Redis orders members of one score by their bytes, here backwards."""
    upper: float | str = "+inf" if after is None else after.created_at
    start = 0
    while True:
        rows = redis.zrevrangebyscore(index, upper, "-inf", start=start, num=_BLOCK, withscores=True)
        places = [Cursor(score, job_id) for job_id, score in cast("list[tuple[str, float]]", rows)]
        rest = [
            p for p in places if after is None or (p.created_at, p.job_id) < (after.created_at, after.job_id)
        ]
        if rest or len(places) < _BLOCK:
            return rest
        start += _BLOCK  # more than a block of jobs of one instant lies before the place
