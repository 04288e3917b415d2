"""What a worker leaves in the result store when its job ends without it."""

import resource
import time
from collections.abc import Callable

import pytest

from model_store.store import Checkpoint
from tests.worker_stack import Stack
from worker.chunks import Outcome
from worker.contract import keys
from worker.contract.messages import ChunkRequest, FailureCode, JobSpec, JobStatus
from worker.process import WorkerProcess
from worker.results import ResultStore, Shard

pytestmark = pytest.mark.integration


class _Late(ResultStore):
    """Writes, then lets something happen to the job before the worker tells that it wrote."""

    def __init__(self, stack: Stack, happening: Callable[[], object]) -> None:
        super().__init__(str(stack.results))
        self._happening = happening

    def write(self, request: ChunkRequest, shard: Shard) -> None:
        super().write(request, shard)
        self._happening()


def _make_first_chunk(stack: Stack, spec: JobSpec, happening: Callable[[], object]) -> Outcome:
    process = WorkerProcess(stack.settings())
    process.maker.results = _Late(stack, happening)
    outcome = process.maker.make(spec.chunk(0).model_dump(mode="json"))
    process.sampler.close()
    return outcome


def _end(stack: Stack, spec: JobSpec, status: JobStatus) -> None:
    stack.ledger.transition(
        spec.job_id, status, allowed_from=(JobStatus.QUEUED, JobStatus.RUNNING), now=time.time()
    )


def test_files_of_a_job_that_is_gone_are_removed(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 16)

    outcome = _make_first_chunk(stack, spec, stack.redis.flushall)

    assert outcome is Outcome.SKIPPED
    assert list(stack.results.iterdir()) == []
    assert stack.redis.keys() == []


def test_files_of_a_job_whose_files_were_collected_are_removed(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    spec = stack.submit(tiny_checkpoint, 16)

    def expire() -> None:
        _end(stack, spec, JobStatus.EXPIRED)
        assert stack.ledger.collect(spec.job_id, now=time.time() + 7200)

    outcome = _make_first_chunk(stack, spec, expire)

    assert outcome is Outcome.SKIPPED
    assert list(stack.results.iterdir()) == []
    assert not stack.ledger.is_chunk_done(spec.job_id, 0)


@pytest.mark.parametrize("status", [JobStatus.EXPIRED, JobStatus.CANCELED, JobStatus.FAILED])
def test_files_of_a_job_that_ended_meanwhile_are_kept_for_a_retry(
    stack: Stack, tiny_checkpoint: Checkpoint, status: JobStatus
) -> None:
    spec = stack.submit(tiny_checkpoint, 16)

    outcome = _make_first_chunk(stack, spec, lambda: _end(stack, spec, status))

    assert outcome is Outcome.DONE
    assert stack.ledger.is_chunk_done(spec.job_id, 0)
    result = stack.ledger.done_chunks(spec.job_id)[0]
    files = list((stack.results / spec.job_id).iterdir())
    assert sum(path.stat().st_size for path in files) == result.stored_bytes
    assert len(files) == 2


def test_an_expired_job_is_put_down_between_micro_batches(stack: Stack, tiny_checkpoint: Checkpoint) -> None:
    spec = stack.submit(tiny_checkpoint, 256, chunk_images=256)
    process = WorkerProcess(stack.settings())
    stack.ledger.start(spec.job_id, now=time.time())
    drawn = 0
    draw = process.sampler.draw

    def counting(*args: object, **options: object) -> object:
        nonlocal drawn
        for batch in draw(*args, **options):  # type: ignore[arg-type]
            drawn += 1
            if drawn == 2:
                _end(stack, spec, JobStatus.EXPIRED)
            yield batch

    process.sampler.draw = counting  # type: ignore[assignment,method-assign]
    outcome = process.maker.make(spec.chunk(0).model_dump(mode="json"))
    process.sampler.close()

    assert outcome is Outcome.SKIPPED
    assert drawn == 2
    assert not stack.results.exists()


def test_no_room_for_a_shard_fails_the_job_and_leaves_nothing(
    stack: Stack, tiny_checkpoint: Checkpoint
) -> None:
    spec = stack.submit(tiny_checkpoint, 256, chunk_images=256)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        stack.work()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert stack.error(spec)["code"] == FailureCode.STORE_FULL
    assert "result store is full" in stack.error(spec)["message"]
    assert list(stack.results.rglob("*")) == []
    assert stack.redis.hget(keys.COUNTERS, "chunk_retries:exception") == "2"
