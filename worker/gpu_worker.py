"""The worker of the chunk queue: one process, one device, its generator kept."""

import logging
from contextlib import AbstractContextManager
from typing import Final

from rq import Queue
from rq.job import Job

from worker.beating_worker import MakingWorker
from worker.chunks import ChunkMaker, chunks_made_by
from worker.contract.chunk_queue import enqueue_chunk

logger = logging.getLogger(__name__)

EXIT_GPU_LOST: Final = 71


class GpuWorker(MakingWorker[ChunkMaker]):
    """One device, one queue, one chunk at a time; put down between micro-batches."""

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
