"""Reports asked for over HTTP: accepting and reading them, and finding those that were lost."""

import logging

from redis import Redis

from model_store.store import Checkpoint
from service.errors import NotFoundError, NoWorkerError, ReferenceMissingError
from service.ids import REPORT_ID_PATTERN, new_report_id
from service.jobs.queues import ReportQueue
from service.jobs.workers import live_workers
from worker.contract import keys
from worker.contract.failures import Failure
from worker.contract.messages import FailureCode, ModelRef, ReportRequest
from worker.contract.report_ledger import ReportLedger, ReportRecord

logger = logging.getLogger(__name__)

MAX_LOSSES = 2
"""A report lost more often than this takes its workers down; it fails."""
GRACE_S = 3.0
"""A report is lost if it was nowhere to be seen for so long: taking and ending one passes through moments
in which it stands in no list."""
LIMIT_S = 86_400.0
"""A report that is not made within a day fails, so that none waits for ever."""


class ReportService:
    """What routes and reaper do with reports. Times are epoch seconds, given by the caller."""

    def __init__(self, redis: Redis, queue: ReportQueue) -> None:
        self._redis = redis
        self._queue = queue
        self._ledger = ReportLedger(redis)
        self._missing_since: dict[str, float] = {}

    def submit(self, checkpoint: Checkpoint, n: int, now: float) -> ReportRecord:
        """The report of this checkpoint and size that is under way, or a new one.

        Raises NoWorkerError, ReferenceMissingError.
        """
        self._admit(checkpoint, now)
        manifest = checkpoint.manifest
        model = ModelRef(name=manifest.name, version=manifest.version, digest=manifest.digest)
        request = ReportRequest(report_id=new_report_id(now), model=model, n=n)
        report_id = self._ledger.create(request, now=now)
        record = self.get(report_id)
        if report_id == request.report_id:
            self._queue.enqueue(record)
        return record

    def get(self, report_id: str) -> ReportRecord:
        """Raises NotFoundError for an id that names no report."""
        record = self._ledger.record(report_id) if REPORT_ID_PATTERN.match(report_id) else None
        if record is None:
            raise NotFoundError(
                f"There is no report {report_id[:100]!r}; its record may have been collected."
            )
        return record

    def tend(self, now: float) -> None:
        """Enqueue lost reports again, end those that cannot be made. Raises RedisError."""
        self._queue.collect_abandoned()
        in_flight = self._queue.in_flight()
        missing: dict[str, float] = {}
        for record in self._ledger.active():
            if now - record.created_at > LIMIT_S:
                self._fail(record, FailureCode.TIMEOUT, "The report was not made within a day.", now)
            elif record.rq_id not in in_flight:
                since = self._missing_since.get(record.rq_id, now)
                if now - since < GRACE_S:
                    missing[record.rq_id] = since
                else:
                    self._recover(record, now)
        self._missing_since = missing

    def _admit(self, checkpoint: Checkpoint, now: float) -> None:
        workers = live_workers(self._redis, now, keys.REPORT_WORKERS)
        if not workers:
            raise NoWorkerError(
                "No process makes reports. Start one with `masan work --queue reports`; it needs"
                " masan[training].",
                retry_after_s=10,
            )
        if not checkpoint.manifest.has_reference_set and not any(worker.has_data for worker in workers):
            raise ReferenceMissingError(
                f"{checkpoint.reference} brings no reference set, and no process that makes reports has real"
                " images. Make one with `masan reference build`, or set MASAN_REPORT_DATA of `masan work"
                " --queue reports` to the folder of the dataset."
            )

    def _recover(self, record: ReportRecord, now: float) -> None:
        losses = self._ledger.lose(record.report_id)
        if not losses:
            return
        extra = {"report_id": record.report_id, "losses": losses}
        self._queue.forget(record.rq_id)
        if losses > MAX_LOSSES:
            logger.error("report lost too often", extra=extra)
            message = f"The report was lost {losses} times; its worker stopped each time."
            self._fail(record, FailureCode.WORKER_LOST, message, now)
            return
        logger.warning("report lost, enqueued again", extra=extra)
        again = self._ledger.record(record.report_id)
        if again is not None:
            self._queue.enqueue(again, at_front=True)

    def _fail(self, record: ReportRecord, code: FailureCode, message: str, now: float) -> None:
        self._ledger.fail(record.report_id, Failure(code, message), now=now)
