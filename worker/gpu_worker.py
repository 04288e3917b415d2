"""RQ's in-process worker made fit for hours of work: it beats while it works and stops between micro-batches.

Stock SimpleWorker sends no heartbeat during a job, so that a killed worker's chunk is noticed after the job
timeout; stops neither for a command nor for SIGTERM before the job ends; and raises out of blocking reads.
"""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.executions import Execution
from rq.job import Job
from rq.worker import WorkerStatus

from worker.chunks import ChunkMaker, chunks_made_by
from worker.contract.chunk_queue import RESULT_TTL_S, enqueue_chunk
from worker.presence import Presence

logger = logging.getLogger(__name__)

BEAT_S: Final = 3
HEARTBEAT_TTL_S: Final = 15
"""Five missed beats and a chunk counts as abandoned. RQ's own figure is a minute more."""
MAINTENANCE_S: Final = 10
WORKER_TTL_S: Final = 30
POLL_S: Final = 1
"""How long one blocking read waits, and so how late an idle worker notices that it is to stop."""
STOP_LIMIT_S: Final = 12.0
"""A stop that takes longer is stuck (a dead Redis, a stuck kernel). The process ends: chunks are safe."""
EXIT_GPU_LOST: Final = 71
EXIT_STUCK: Final = 72


class GpuWorker(SimpleWorker):
    """One process, one device, one queue, one chunk at a time."""

    def __init__(self, queue: Queue, maker: ChunkMaker, presence: Presence, *, name: str) -> None:
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
        self._maker = maker
        self._presence = presence

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop_requested

    def take_signals(self) -> None:
        """From here on SIGTERM and SIGINT stop the worker as they do while it works."""
        signal.signal(signal.SIGTERM, self.request_stop)
        signal.signal(signal.SIGINT, self.request_stop)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one chunk in this process. Raises SystemExit if the device was lost."""
        execution = self.prepare_execution(job)
        self._presence.set_state("busy")
        with self._beating(job, execution), chunks_made_by(self._maker):
            self.perform_job(job, queue, execution)
        self._stopped_job_id = None
        self._put_back_interrupted(queue)
        self.set_state(WorkerStatus.IDLE)
        self._presence.set_state("stopping" if self.is_stopping else "idle")
        if self._maker.is_gpu_lost:
            logger.critical("the GPU is lost", extra={"reason": "this process cannot use it any more"})
            raise SystemExit(EXIT_GPU_LOST)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:  # noqa: ARG002 - RQ's signature
        """Seconds until a chunk without a beat counts as abandoned."""
        return HEARTBEAT_TTL_S

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        """Stop after the current micro-batch. Touches no connection: it may have been in use when we came."""
        if self._stop_requested:
            return
        self._stop_requested = True
        self._maker.interrupt.set()
        deadline = threading.Timer(STOP_LIMIT_S, _end_stuck_process)
        deadline.daemon = True
        deadline.start()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """A second signal asks for what the first one does already."""
        self.request_stop(signum, frame)

    def kill_horse(self, sig: signal.Signals = signal.SIGTERM) -> None:  # noqa: ARG002 - RQ's signature
        """RQ's stop command. Jobs are canceled in the ledger, which every worker reads; this does nothing."""
        logger.warning("stop command ignored", extra={"reason": "cancel the job instead"})

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Wait for a chunk in short reads, so that stopping needs no exception out of one. None to stop."""
        is_burst = timeout is None
        if is_burst or max_idle_time is not None:
            return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
        while not self._stop_requested:
            if result := super().dequeue_job_and_maintain_ttl(timeout, max_idle_time=POLL_S):
                return result
        return None

    def _put_back_interrupted(self, queue: Queue) -> None:
        """After RQ has closed the book on it, an interrupted chunk is enqueued anew, ahead of the others."""
        request, self._maker.interrupted = self._maker.interrupted, None
        if request is not None:
            enqueue_chunk(queue, request, at_front=True)
            logger.info(
                "chunk put back", extra={"job_id": request.job_id, "chunk_index": request.chunk_index}
            )

    @contextmanager
    def _beating(self, job: Job, execution: Execution) -> Iterator[None]:
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT_S):
                try:
                    self.maintain_heartbeats(job, execution)
                except RedisError as error:
                    logger.warning("heartbeat failed", extra={"reason": str(error)})

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(BEAT_S)


def _end_stuck_process() -> None:
    logger.critical("stop is stuck", extra={"reason": f"it took more than {STOP_LIMIT_S:g} s"})
    os._exit(EXIT_STUCK)
