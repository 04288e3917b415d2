"""One report of the queue: judge a checkpoint, keep the report beside it, tell how far it is. Torch-free.

What judges is given by the process that takes reports (`masan.report_judge`), because it loads torch.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import ValidationError
from redis.exceptions import RedisError
from rq.timeouts import JobTimeoutException

from masan.errors import MasanError
from model_store.report import QualityReport, attach_report
from model_store.store import Checkpoint, ModelStore
from worker.contract.failures import Failure, failure_of
from worker.contract.messages import FailureCode, ReportRequest
from worker.contract.report_ledger import ReportLedger

logger = logging.getLogger(__name__)

TELL_S = 0.5
"""Progress within a stage is written at most so often."""
_TIMEOUT = "The report took longer than one may take."

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, done, of how many)."""
Judge = Callable[[Checkpoint, int, Progress], QualityReport]
"""Judges a checkpoint on so many generated images of each class."""


class ReportReferenceError(MasanError):
    """There is nothing to judge the checkpoint against."""

    failure_code: ClassVar[FailureCode] = FailureCode.REFERENCE_MISSING


class ReportDataError(MasanError):
    """The real images cannot be used for this checkpoint."""

    failure_code: ClassVar[FailureCode] = FailureCode.DATASET_INVALID


class Outcome(StrEnum):
    """How a report ended here. `superseded`: another worker has it, or it is finished."""

    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    SUPERSEDED = "superseded"


class _Interrupted(Exception):  # noqa: N818 - a way out of the judge, no error
    """We were told to stop."""


class _Superseded(Exception):  # noqa: N818 - a way out of the judge, no error
    """The report is not ours any more."""


@dataclass(kw_only=True)
class ReportMaker:
    """What a process makes reports with. `interrupt` is set from a signal handler or another thread.

    interrupted: the report that was put down because of it, to be enqueued anew.
    """

    ledger: ReportLedger
    store: ModelStore
    judge: Judge
    interrupt: threading.Event = field(default_factory=threading.Event)
    interrupted: ReportRequest | None = None

    def make(self, payload: Mapping[str, Any]) -> Outcome:
        """Make one report; whatever goes wrong ends it with a reason. Raises RedisError alone."""
        try:
            request = ReportRequest.model_validate(payload)
        except ValidationError as error:
            # Without an id to fail; the reaper gives the report up when its job is nowhere to be seen.
            logger.error("report request unusable", extra={"reason": str(error)})
            return Outcome.FAILED
        attempt = self.ledger.start(request.report_id, now=time.time())
        if attempt is None:
            return Outcome.SUPERSEDED
        extra = {"report_id": request.report_id, "model": request.model.reference, "attempt": attempt}
        started = time.monotonic()
        try:
            outcome = self._make(request, attempt)
        except _Superseded:
            outcome = Outcome.SUPERSEDED
        except _Interrupted:
            outcome = self._put_down(request, attempt)
        except RedisError:
            raise
        except Exception as error:
            failure = _failure_of(error)
            if failure.code is FailureCode.INTERNAL:
                logger.exception("report failed unexpectedly", extra=extra)
            self.ledger.fail(request.report_id, failure, now=time.time(), attempt=attempt)
            extra["reason"] = failure.message
            outcome = Outcome.FAILED
        seconds = round(time.monotonic() - started, 1)
        logger.info("report ended", extra=extra | {"outcome": outcome, "seconds": seconds})
        return outcome

    def _make(self, request: ReportRequest, attempt: int) -> Outcome:
        checkpoint = self.store.resolve(request.model.reference)
        if checkpoint.digest != request.model.digest:
            reason = f"{checkpoint.reference} is not the checkpoint that was asked about; ask again"
            raise ReportDataError(reason)
        tell = _Telling(self, request.report_id, attempt)
        report = self.judge(checkpoint, request.n, tell)
        tell("keep the report", 0, 1)
        attach_report(self.store, checkpoint, report)
        ended = self.ledger.succeed(request.report_id, attempt, now=time.time())
        return Outcome.DONE if ended else Outcome.SUPERSEDED

    def _put_down(self, request: ReportRequest, attempt: int) -> Outcome:
        if not self.ledger.give_back(request.report_id, attempt):
            return Outcome.SUPERSEDED
        self.interrupted = request
        return Outcome.INTERRUPTED


class _Telling:
    """Progress into the ledger, and the place where a report that is to stop is left."""

    def __init__(self, maker: ReportMaker, report_id: str, attempt: int) -> None:
        self._maker = maker
        self._report_id = report_id
        self._attempt = attempt
        self._stage = ""
        self._told_at = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Raises _Interrupted, _Superseded."""
        if self._maker.interrupt.is_set():
            raise _Interrupted
        now = time.monotonic()
        if stage == self._stage and done < total and now - self._told_at < TELL_S:
            return
        self._stage, self._told_at = stage, now
        if not self._maker.ledger.tell(self._report_id, self._attempt, stage=stage, done=done, total=total):
            raise _Superseded


_maker: ContextVar[ReportMaker] = ContextVar("maker")
"""RQ calls a function by name with the payload alone; what it works with is its process's."""


@contextmanager
def reports_made_by(maker: ReportMaker) -> Iterator[None]:
    """Let `make_report` use this maker inside the block."""
    token = _maker.set(maker)
    try:
        yield
    finally:
        _maker.reset(token)


def make_report(payload: Mapping[str, Any]) -> str:
    """What the queue names. payload: a ReportRequest as JSON. Returns the outcome."""
    return _maker.get().make(payload).value


def _failure_of(error: Exception) -> Failure:
    """As of a chunk, in words of a report."""
    if isinstance(error, JobTimeoutException):
        return Failure(FailureCode.TIMEOUT, _TIMEOUT)
    if isinstance(error, OSError):
        return Failure(FailureCode.STORE_UNAVAILABLE, f"a file could not be read or written: {error}")
    return failure_of(error)
