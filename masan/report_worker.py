"""`python -m masan.report_worker`: makes quality reports, one at a time, from their own queue.

With `--webhooks` a thread beside it delivers webhooks, so that those do not wait for a report; another judges
what was served of late. The start is quick and light: torch and training are loaded with the first report.
"""

import logging
import os
import secrets
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue

from masan.report_judge import CheckpointJudge
from masan.report_maker import Judge, ReportMaker, reports_made_by
from masan.report_settings import ReportWorkerSettings
from masan.served_quality import ServedQuality
from masan.webhook_settings import WebhookSettings
from masan.webhook_worker import WebhookProcess
from model_store.store import ModelStore
from worker.beating_worker import MakingWorker
from worker.contract import keys
from worker.contract.redis_clients import open_redis
from worker.contract.report_ledger import ReportLedger
from worker.contract.report_queue import enqueue_report, open_report_queue
from worker.logs import configure_logging
from worker.presence import Presence
from worker.settings import WorkerSettingsError, load_settings_of, usable_cores

logger = logging.getLogger(__name__)

_NICENESS = 10
"""Images go before reports where both want the same cores."""


class ReportWorker(MakingWorker[ReportMaker]):
    """One report at a time; put down where it tells its progress."""

    def making(self) -> AbstractContextManager[None]:
        """See `MakingWorker`."""
        return reports_made_by(self.maker)

    def put_back_interrupted(self, queue: Queue) -> None:
        """See `MakingWorker`."""
        request, self.maker.interrupted = self.maker.interrupted, None
        record = self.maker.ledger.record(request.report_id) if request else None
        if record is not None:
            enqueue_report(queue, record.request, losses=record.losses, at_front=True)
            logger.info("report put back", extra={"report_id": record.report_id})


class ReportProcess:
    """Everything the process holds. Connects to nothing before `run`. Raises WorkerSettingsError.

    judge: stands in for the one that evaluates with training.
    """

    def __init__(self, settings: ReportWorkerSettings, judge: Judge | None = None) -> None:
        self.settings = settings
        try:
            store = ModelStore(settings.model_store_url)
        except ValueError as error:
            raise WorkerSettingsError(f"MASAN_MODEL_STORE_URL: {error}") from error
        redis = open_redis(settings.redis_url, decode_responses=True)
        self.queue = open_report_queue(open_redis(settings.redis_url, decode_responses=False))
        self.presence = Presence(
            redis,
            settings.worker_name,
            settings.device,
            registry=keys.REPORT_WORKERS,
            facts={"has_data": settings.report_data is not None},
        )
        own_judge = CheckpointJudge(
            store,
            data=settings.report_data,
            cache_dir=settings.report_cache,
            device=settings.device,
            threads=settings.threads or usable_cores(),
        )
        self.served = _served_quality(settings, redis, store)
        self.maker = ReportMaker(ledger=ReportLedger(redis), store=store, judge=judge or own_judge)

    def run(self, *, burst: bool = False) -> int:
        """Make reports until told to stop; with `burst`, until the queue is empty. Returns the exit code."""
        name = f"{self.settings.worker_name}.{secrets.token_hex(4)}"  # RQ refuses a killed worker's name
        try:
            self.presence.start()
            worker = ReportWorker(self.queue, self.maker, self.presence, name=name)
            worker.take_signals()
            self.presence.set_state("idle")
            logger.info("report worker ready", extra={"worker": self.settings.worker_name})
            worker.work(burst=burst, logging_level="WARNING")
        except RedisError as error:
            logger.error("Redis is unavailable", extra={"reason": str(error)})
            return 1
        finally:
            self.presence.stop()
        if burst or worker.is_stopping:
            logger.info("report worker stopped", extra={"worker": self.settings.worker_name})
            return 0
        logger.error("report worker ended", extra={"reason": "see the line before"})
        return 1


def main() -> int:
    """Exit code 2 for a setting that cannot be used, named on one line of stderr."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        settings = load_settings_of(ReportWorkerSettings)
        configure_logging(settings.log_level)
        process = ReportProcess(settings)
        webhooks = WebhookProcess(load_settings_of(WebhookSettings)) if "--webhooks" in sys.argv[1:] else None
    except WorkerSettingsError as error:
        sys.stderr.write(f"masan work: {error}\n")
        return 2
    os.nice(_NICENESS)
    served = process.served
    with webhooks.beside() if webhooks else nullcontext(), served.beside() if served else nullcontext():
        return process.run()


def _served_quality(settings: ReportWorkerSettings, redis: Redis, store: ModelStore) -> ServedQuality | None:
    if not settings.result_store_url or not settings.served_quality_s:
        return None
    try:
        return ServedQuality(redis, store, settings.result_store_url, interval_s=settings.served_quality_s)
    except ValueError as error:
        raise WorkerSettingsError(f"MASAN_RESULT_STORE_URL: {error}") from error


def _leave(_signum: int, _frame: FrameType | None) -> None:
    """While the process starts; once it works, the worker's own handlers stand here."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
