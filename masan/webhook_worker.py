"""`python -m masan.webhook_worker`: delivers webhooks from their own queue; also a thread beside reports.

A report takes minutes and a delivery should not wait for it, hence the thread; nothing of torch is needed.
"""

import logging
import secrets
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from redis.exceptions import RedisError
from rq import Queue
from rq.job import Job
from rq.worker import WorkerStatus

from masan.webhook_sender import WebhookSender, webhooks_sent_by
from masan.webhook_settings import WebhookSettings
from worker.beating_worker import BeatingWorker, NoAlarm
from worker.contract.redis_clients import open_redis
from worker.contract.webhook_queue import enqueue_due, open_webhook_queue
from worker.logs import configure_logging
from worker.settings import WorkerSettingsError, load_settings_of

logger = logging.getLogger(__name__)

_RESTART_S: Final = 1.0
_JOIN_S: Final = 3.0
"""A stop does not wait longer for an attempt: its lease runs out and it is made again, under the same id."""


class WebhookWorker(BeatingWorker):
    """One delivery at a time; between two looks at the queue it puts in what has become due."""

    death_penalty_class = NoAlarm  # an attempt ends itself in time

    def __init__(self, queue: Queue, sender: WebhookSender) -> None:
        super().__init__(queue, name=f"webhooks.{secrets.token_hex(8)}")
        self._sender = sender

    def interrupt(self) -> None:
        """An attempt takes seconds; let it end."""

    def end_soon(self) -> None:
        """For another thread: stop after the attempt at hand."""
        self._stop_requested = True

    def before_poll(self) -> None:
        """Fill the queue. Raises RedisError."""
        enqueue_due(self.queues[0], self._sender.ledger, now=self._sender.clock())

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Make one attempt in this process."""
        with self.needing_redis():
            execution = self.prepare_execution(job)
            with self.beating(job, execution), webhooks_sent_by(self._sender):
                self.perform_job(job, queue, execution)
            self.set_state(WorkerStatus.IDLE)

    def _install_signal_handlers(self) -> None:
        if threading.current_thread() is threading.main_thread():
            super()._install_signal_handlers()  # type: ignore[no-untyped-call]


class WebhookProcess:
    """What delivers webhooks, in a process of its own or a thread. Connects to nothing before `run`."""

    def __init__(self, settings: WebhookSettings, sender: WebhookSender | None = None) -> None:
        redis = open_redis(settings.redis_url, decode_responses=True)
        self.queue = open_webhook_queue(open_redis(settings.redis_url, decode_responses=False))
        self.sender = sender or WebhookSender(redis, settings.webhook_networks)
        self._stopping = threading.Event()
        self._worker: WebhookWorker | None = None

    def run(self, *, burst: bool = False) -> int:
        """Deliver until told to stop; with `burst`, what is due now. Returns the exit code."""
        try:
            self._worker = worker = WebhookWorker(self.queue, self.sender)
            if self._stopping.is_set():  # whoever set it may have come before there was a worker to tell
                worker.end_soon()
            if burst:
                worker.before_poll()
            logger.info("webhook worker ready")
            worker.work(burst=burst, logging_level="WARNING")
        except RedisError as error:
            logger.error("Redis is unavailable", extra={"reason": str(error)})
            return 1
        if burst or worker.is_stopping:
            logger.info("webhook worker stopped")
            return 0
        logger.error("webhook worker ended", extra={"reason": "see the line before"})
        return 1

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Deliver from a thread for as long as the block runs."""
        thread = threading.Thread(target=self._keep_running, name="webhooks", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            if self._worker is not None:
                self._worker.end_soon()
            thread.join(_JOIN_S)

    def _keep_running(self) -> None:
        while not self._stopping.is_set():
            try:
                self.run()
            except Exception:
                logger.exception("webhook worker failed")
            self._stopping.wait(_RESTART_S)


def main() -> int:
    """Exit code 2 for a setting that cannot be used, named on one line of stderr."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    try:
        settings = load_settings_of(WebhookSettings)
    except WorkerSettingsError as error:
        sys.stderr.write(f"masan work: {error}\n")
        return 2
    configure_logging(settings.log_level)
    return WebhookProcess(settings).run()


def _leave(_signum: int, _frame: FrameType | None) -> None:
    """While the process starts; once it works, the worker's own handlers stand here."""
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main())
