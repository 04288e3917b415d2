"""RQ's in-process worker made fit for hours of work: it beats while it works and stops when told. Torch-free.

Stock SimpleWorker sends no heartbeat during a job, so that a killed worker's job is noticed after the job
timeout; stops neither for a command nor for SIGTERM before the job ends; raises out of blocking reads; and
meets a Redis that stays away with tracebacks, or waits for it for ever.
"""

import logging
import os
import signal
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from queue import SimpleQueue
from types import FrameType
from typing import Any, Final, Generic, Protocol, TypeVar

from redis.client import Pipeline, PubSub, PubSubWorkerThread
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import BaseDeathPenalty
from rq.worker import WorkerStatus

from worker.contract.chunk_queue import RESULT_TTL_S
from worker.presence import Presence

logger = logging.getLogger(__name__)

BEAT_S: Final = 2
HEARTBEAT_TTL_S: Final = 10
"""Five missed beats and a job counts as abandoned; bounds how long a killed worker's chunk waits. RQ's own
figure is a minute more."""
MAINTENANCE_S: Final = 10
WORKER_TTL_S: Final = 30
_OWN_BEAT_S: Final = 1.0
POLL_S: Final = 1
"""How long one blocking read waits, and so how late an idle worker notices that it is to stop."""
STOP_LIMIT_S: Final = 12.0
"""A stop that takes longer is stuck (a dead Redis, a stuck kernel). The process ends: its job is safe."""
_LISTEN_AGAIN_S: Final = 2.0
EXIT_STUCK: Final = 72


class NoAlarm(BaseDeathPenalty):
    """RQ's timeout is a signal, which threads cannot have. What runs in one looks at the clock itself."""

    def setup_death_penalty(self) -> None:
        """Nothing."""

    def cancel_death_penalty(self) -> None:
        """Nothing."""


class BeatingWorker(SimpleWorker):
    """One process, one queue, one job at a time. What a job does is the subclass's."""

    def __init__(self, queue: Queue, *, name: str) -> None:
        self._beat_at = -_OWN_BEAT_S
        self._lost: RedisError | None = None
        self._told: SimpleQueue[bool] = SimpleQueue()
        super().__init__(
            [queue],
            name=name,
            connection=queue.connection,
            serializer="json",
            default_result_ttl=RESULT_TTL_S,
            job_monitoring_interval=BEAT_S,
            maintenance_interval=MAINTENANCE_S,
            worker_ttl=WORKER_TTL_S,
            log_job_description=False,
        )

    @abstractmethod
    def interrupt(self) -> None:
        """Tell the job at hand to put itself down. Called from another thread than the worker's."""

    def before_poll(self) -> None:
        """Called about once a second while the worker waits."""

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop_requested

    def take_signals(self) -> None:
        """From here on SIGTERM and SIGINT stop the worker as they do while it works."""
        signal.signal(signal.SIGTERM, self.request_stop)
        signal.signal(signal.SIGINT, self.request_stop)

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As RQ's. Raises RedisError if Redis stayed away for longer than a command waits."""
        threading.Thread(target=self._guard_stop, name="stop", daemon=True).start()
        try:
            has_worked = super().work(*args, **kwargs)
        finally:
            self._told.put(False)
        if self._lost is not None and not self._stop_requested:
            raise self._lost
        return has_worked

    @contextmanager
    def needing_redis(self) -> Iterator[None]:
        """Leave RQ's loop in silence where Redis stays away; `work` tells it. Raises StopRequested."""
        try:
            yield
        except RedisError as error:
            self._lost = error
            raise StopRequested from error

    def check_for_suspension(self, burst: bool) -> None:
        """As RQ's."""
        with self.needing_redis():
            super().check_for_suspension(burst)

    def run_maintenance_tasks(self) -> None:
        """As RQ's."""
        with self.needing_redis():
            super().run_maintenance_tasks()  # type: ignore[no-untyped-call]

    def teardown(self) -> None:
        """As RQ's; without Redis nothing but the listening thread is left to end, and our entry runs out."""
        if self._lost is None:
            super().teardown()  # type: ignore[no-untyped-call]
        elif self.pubsub_thread is not None:
            self.pubsub_thread.stop()

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """As RQ's, which logs a traceback: that Redis was away is nothing of the job's doing."""
        if isinstance(exc_info[1], RedisError):
            logger.error("job given up", extra={"rq_job": job.id, "reason": f"Redis: {exc_info[1]}"})
        else:
            super().handle_exception(job, *exc_info)

    def _pubsub_exception_handler(
        self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread
    ) -> None:
        """Listen on in silence: who works tells of a lost Redis. RQ tells every 2 s, and dies of some."""
        if isinstance(exc, RedisError):
            time.sleep(_LISTEN_AGAIN_S)
        else:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 - RQ's signature
        """Seconds until a job without a beat counts as abandoned."""
        return HEARTBEAT_TTL_S

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """As RQ's, which sends one before, after and between every two jobs: once a second is enough."""
        now = time.monotonic()
        if pipeline is not None or timeout is not None or now - self._beat_at >= _OWN_BEAT_S:
            self._beat_at = now
            with self.needing_redis():
                super().heartbeat(timeout, pipeline)

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        """Stop as soon as the job lets go.

        Touches no connection and takes no lock: whatever was interrupted may hold them. The queue's `put` may
        be called within a `put`.
        """
        if not self._stop_requested:
            self._stop_requested = True
            self._told.put(True)

    def _guard_stop(self) -> None:
        """Wait for a stop to pass it on to the job, and to end the process if that does not."""
        if self._told.get():
            self.interrupt()
            time.sleep(STOP_LIMIT_S)
            end_stuck_process(STOP_LIMIT_S)

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal asks for what the first one does already."""
        self.request_stop(signum, frame)

    def kill_horse(self, sig: signal.Signals = signal.SIGTERM) -> None:  # noqa: ARG002 - RQ's signature
        """RQ's stop command. What is canceled is so in our own records; this does nothing."""
        logger.warning("stop command ignored", extra={"reason": "cancel the job instead"})

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a job in short reads, so that stopping needs no exception out of one. None to stop."""
        is_burst = timeout is None
        if is_burst or max_idle_time is not None:
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        while not self._stop_requested:
            with self.needing_redis():
                self.before_poll()
            if result := super().dequeue_job_and_maintain_ttl(timeout, max_idle_time=POLL_S):
                return result
        return None

    def beat(self, job: Job, execution: Execution) -> None:
        """Send one heartbeat for a job."""
        try:
            self.maintain_heartbeats(job, execution)
        except RedisError as error:
            logger.warning("heartbeat failed", extra={"reason": str(error)})

    @contextmanager
    def beating(self, job: Job, execution: Execution) -> Iterator[None]:
        """Send heartbeats for the job until the block ends."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT_S):
                self.beat(job, execution)

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(BEAT_S)


class Maker(Protocol):
    """What a job is done with. interrupt: set to have it put the job down."""

    @property
    def interrupt(self) -> threading.Event: ...


MakerT = TypeVar("MakerT", bound=Maker)


class MakingWorker(BeatingWorker, Generic[MakerT]):
    """Shows in the registry what it does, and puts back what it was interrupted in."""

    def __init__(self, queue: Queue, maker: MakerT, presence: Presence, *, name: str) -> None:
        super().__init__(queue, name=name)
        self.maker = maker
        self._presence = presence

    @abstractmethod
    def making(self) -> AbstractContextManager[None]:
        """Within it RQ's job finds the maker."""

    @abstractmethod
    def put_back_interrupted(self, queue: Queue) -> None:
        """After RQ has closed the book on it, enqueue an interrupted job anew, ahead of the others."""

    def interrupt(self) -> None:
        """Stop where the maker next looks."""
        self.maker.interrupt.set()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one job in this process."""
        with self.needing_redis():
            execution = self.prepare_execution(job)
            self._presence.set_state("busy")
            with self.beating(job, execution), self.making():
                self.perform_job(job, queue, execution)
            self._stopped_job_id = None
            self.put_back_interrupted(queue)
            self.set_state(WorkerStatus.IDLE)
        self._presence.set_state("stopping" if self.is_stopping else "idle")


def end_stuck_process(limit_s: float) -> None:
    """What hangs longer than that will not end by itself."""
    logger.critical("worker is stuck", extra={"reason": f"it took more than {limit_s:g} s"})
    os._exit(EXIT_STUCK)
