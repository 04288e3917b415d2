"""Keeps the result store within its limit and free of what no job accounts for; part of a reaper's round."""

import logging
import secrets
from collections.abc import Callable, Iterator
from typing import Final, cast

from redis import Redis

from service.storage.store import ResultStore
from worker.contract import keys
from worker.contract.ledger import JobLedger

logger = logging.getLogger(__name__)

OWNER: Final = "masan:results:owner"
"""Random name of this Redis; the store bears it as well. Only what it owns is swept: with another Redis, or
an empty one, every job of the store would seem to be nobody's."""
SWEPT_AT: Final = "masan:results:swept"
SWEEP_S: Final = 3_600.0
ORPHAN_S: Final = 3_600.0
"""Files younger than this may belong to a chunk at work whose job is being forgotten right now."""
_PAGE: Final = 200


class StorageKeeper:
    """max_bytes: that all results may take before the oldest finished jobs give way; 0 for no limit."""

    def __init__(self, redis: Redis, ledger: JobLedger, results: ResultStore, *, max_bytes: int) -> None:
        self._redis = redis
        self._ledger = ledger
        self._results = results
        self._max_bytes = max_bytes

    def make_room(self, now: float) -> int:
        """Let the oldest finished jobs expire now until the others are within the limit; returns how many.

        Never a job that is not finished. Their files are deleted as those of any expired job.
        """
        if not self._max_bytes:
            return 0
        stored = self._redis.hget(keys.COUNTERS, "result_bytes")
        excess = int(cast("str | None", stored) or 0) - self._max_bytes
        expired = 0
        for job_id in self._oldest_first():
            if excess <= 0:
                break
            freed = self._ledger.expire_early(job_id, now=now)
            if freed:
                excess -= freed
                expired += 1
                logger.info("result expired early", extra={"job_id": job_id, "bytes": freed})
        return expired

    def sweep(self, now: float, go_on: Callable[[], object]) -> int:
        """About once an hour remove what no job accounts for; returns how much was found.

        That is: folders of jobs that are unknown or whose files were deleted, and files that a writer left
        half-written, all of them not touched for ORPHAN_S. go_on: called often; ends the sweep by raising.
        Raises OSError.
        """
        last = cast("str | None", self._redis.get(SWEPT_AT))
        if last is not None and abs(now - float(last)) < SWEEP_S:  # clocks may be set back
            return 0
        self._redis.set(SWEPT_AT, now)
        if not self._is_ours():
            return 0
        before = now - ORPHAN_S
        found = self._results.delete_asides("", before=before)
        for job_id, is_known in self._folders():
            go_on()
            if is_known:
                # Elsewhere a file is one put, and a listing of each job's would take long.
                if self._results.backend == "file":
                    found += self._results.delete_asides(job_id, before=before)
            elif (changed := self._results.last_change(job_id)) is None or changed < before:
                self._results.delete_job(job_id)
                found += 1
                logger.warning("files without a job removed", extra={"job_id": job_id})
        return found

    def _is_ours(self) -> bool:
        self._redis.set(OWNER, secrets.token_hex(16), nx=True)
        ours = cast("str", self._redis.get(OWNER))
        theirs = self._results.owner()
        if theirs is None:
            self._results.claim(ours)
        elif theirs != ours:
            logger.warning(
                "result store belongs to another Redis; files without a job are left there",
                extra={"store": self._results.url},
            )
            return False
        return True

    def _folders(self) -> Iterator[tuple[str, bool]]:
        """Each job that has files, with whether they are to be there."""
        folders = self._results.job_folders()
        for start in range(0, len(folders), _PAGE):
            page = folders[start : start + _PAGE]
            scores = self._redis.zmscore(keys.EXPIRY_INDEX, list(page))
            yield from ((job_id, score is not None) for job_id, score in zip(page, scores, strict=True))

    def _oldest_first(self) -> Iterator[str]:
        """Ids of all listed jobs, by creation."""
        start = 0
        while page := cast("list[str]", self._redis.zrange(keys.JOB_INDEX, start, start + _PAGE - 1)):
            yield from page
            start += _PAGE
