"""The worker of the chunk queue: one process, one device, its generator kept."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from rq import Queue
from rq.job import Job

from worker.beating_worker import MakingWorker
from worker.chunks import ChunkMaker, chunks_made_by
from worker.contract.chunk_queue import enqueue_chunk
from worker.presence import Presence

logger = logging.getLogger(__name__)

EXIT_GPU_LOST: Final = 71


class GpuWorker(MakingWorker[ChunkMaker]):
    """One device, one queue, one chunk at a time; put down between micro-batches.

    before_poll: called before each look at the queue, about once a second while it is empty.
    """

    def __init__(
        self,
        queue: Queue,
        maker: ChunkMaker,
        presence: Presence,
        *,
        name: str,
        before_poll: Callable[[], None],
    ) -> None:
        super().__init__(queue, maker, presence, name=name)
        self._before_poll = before_poll

    def before_poll(self) -> None:
        """See `BeatingWorker`."""
        self._before_poll()

    def making(self) -> AbstractContextManager[None]:
        """See `MakingWorker`."""
        return chunks_made_by(self.maker)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Run one chunk in this process. Raises SystemExit if the device was lost."""
        super().execute_job(job, queue)
        if self.maker.is_gpu_lost:
            logger.critical("the GPU is lost", extra={"reason": "this process cannot use it any more"})
            raise SystemExit(EXIT_GPU_LOST)

    def put_back_interrupted(self, queue: Queue) -> None:
        """See `MakingWorker`."""
        request, self.maker.interrupted = self.maker.interrupted, None
        if request is not None:
            # Under the id the reaper looks for, or it would enqueue the chunk a second time.
            record = self.maker.ledger.record(request.job_id)
            attempt = int(record["attempt"]) if record else 1
            enqueue_chunk(queue, request, at_front=True, attempt=attempt)
            logger.info(
                "chunk put back", extra={"job_id": request.job_id, "chunk_index": request.chunk_index}
            )
