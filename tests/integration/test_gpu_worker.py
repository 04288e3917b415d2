"""What a worker does with a chunk that it was stopped in."""

import pytest

from model_store.store import Checkpoint
from tests.worker_stack import Stack
from worker.contract import keys
from worker.contract.chunk_queue import enqueue_chunk
from worker.gpu_worker import GpuWorker
from worker.process import WorkerProcess

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_interrupted_chunk_goes_back_under_the_id_of_its_job_s_attempt(
    stack: Stack, tiny_checkpoint: Checkpoint, attempt: int
) -> None:
    spec = stack.submit(tiny_checkpoint, 8)
    stack.queue.empty()
    stack.redis.hset(keys.job_key(spec.job_id), "attempt", attempt)
    process = WorkerProcess(stack.settings())
    worker = GpuWorker(process.queue, process.maker, process.presence, name="one", before_poll=lambda: None)

    enqueue_chunk(stack.queue, spec.chunk(0), attempt=attempt)
    process.maker.interrupt.set()
    taken = worker.dequeue_job_and_maintain_ttl(None)
    assert taken is not None
    worker.execute_job(*taken)
    worker.teardown()

    process.sampler.close()
    assert stack.queue.get_job_ids() == [keys.chunk_job_id(spec.job_id, 0, attempt)]
