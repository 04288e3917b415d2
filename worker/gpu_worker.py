"""The worker of the chunk queue: one process, one device, its generator kept."""

import logging
from typing import Final

from rq import Queue
from rq.job import Job
from rq.worker import WorkerStatus

from worker.beating_worker import BeatingWorker
from worker.chunks import ChunkMaker, chunks_made_by
from worker.contract.chunk_queue import enqueue_chunk
from worker.presence import Presence

logger = logging.getLogger(__name__)

EXIT_GPU_LOST: Final = 71


class GpuWorker(BeatingWorker):
    """One device, one queue, one chunk at a time; put down between micro-batches."""

    def __init__(self, queue: Queue, maker: ChunkMaker, presence: Presence, *, name: str) -> None:
        super().__init__(queue, name=name)
        self._maker = maker
        self._presence = presence

    def interrupt(self) -> None:
        """Stop after the current micro-batch."""
        self._maker.interrupt.set()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one chunk in this process. Raises SystemExit if the device was lost."""
        execution = self.prepare_execution(job)
        self._presence.set_state("busy")
        with self.beating(job, execution), chunks_made_by(self._maker):
            self.perform_job(job, queue, execution)
        self._stopped_job_id = None
        self._put_back_interrupted(queue)
        self.set_state(WorkerStatus.IDLE)
        self._presence.set_state("stopping" if self.is_stopping else "idle")
        if self._maker.is_gpu_lost:
            logger.critical("the GPU is lost", extra={"reason": "this process cannot use it any more"})
            raise SystemExit(EXIT_GPU_LOST)

    def _put_back_interrupted(self, queue: Queue) -> None:
        """After RQ has closed the book on it, an interrupted chunk is enqueued anew, ahead of the others."""
        request, self._maker.interrupted = self._maker.interrupted, None
        if request is not None:
            enqueue_chunk(queue, request, at_front=True)
            logger.info(
                "chunk put back", extra={"job_id": request.job_id, "chunk_index": request.chunk_index}
            )
