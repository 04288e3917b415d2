"""The worker of the chunk queue: one process, one device, its generator kept, its cores never without work.

RQ's worker takes one job, makes it and takes the next. Here each chunk that is taken gets a thread, in which
RQ's own code sees it through: start, outcome, retry, failure. The next chunk is taken as soon as the images
that wait to be drawn would no longer keep the device busy, so that small chunks share forward passes and
nothing is drawn later because something is written. Each chunk has an execution and heartbeats of its own.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import RedisError
from rq import Queue
from rq.executions import Execution
from rq.job import Job

from worker.beating_worker import BEAT_S, STOP_LIMIT_S, BeatingWorker, NoAlarm, end_stuck_process
from worker.chunks import ChunkMaker, Claim, chunk_made_by
from worker.contract.chunk_queue import CHUNK_TIMEOUT_S, RETRIES, enqueue_chunk
from worker.presence import Presence

logger = logging.getLogger(__name__)

EXIT_GPU_LOST: Final = 71
_WAIT_S: Final = 0.25
"""How long one wait for room lasts, and so how late a busy worker notices that it is to stop."""
_OVERTIME_S: Final = 60
"""A chunk looks at its time between micro-batches; one that is so late hangs, and so does its thread."""


@dataclass(frozen=True, eq=False)
class _Held:
    """A chunk, from when it is taken to when RQ has closed the book on it."""

    job: Job
    queue: Queue
    execution: Execution
    claim: Claim
    began: float = field(default_factory=time.monotonic)


class GpuWorker(BeatingWorker):
    """One device, one queue; chunks beside one another, put down between micro-batches.

    before_poll: called before each look at the queue, about once a second while it is empty.
    """

    death_penalty_class = NoAlarm

    def __init__(
        self,
        queue: Queue,
        maker: ChunkMaker,
        presence: Presence,
        *,
        name: str,
        before_poll: Callable[[], None],
    ) -> None:
        super().__init__(queue, name=name)
        self.maker = maker
        self._presence = presence
        self._before_poll = before_poll
        self._held: list[_Held] = []
        self._changed = maker.sampler.changed
        self._showing = threading.Lock()
        self._error: BaseException | None = None
        self._left = threading.Event()

    def before_poll(self) -> None:
        """See `BeatingWorker`. Raises SystemExit if the device was lost, and what a chunk's thread met."""
        if self.maker.is_gpu_lost:
            logger.critical("the GPU is lost", extra={"reason": "this process cannot use it any more"})
            raise SystemExit(EXIT_GPU_LOST)
        if self._error is not None:
            raise self._error
        self._before_poll()

    def interrupt(self) -> None:
        """Stop where the chunks next look."""
        self.maker.interrupt.set()

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """As BeatingWorker's, with one thread that beats for all chunks."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        try:
            return super().work(*args, **kwargs)
        finally:
            self._left.set()

    def execute_job(self, job: Job, queue: Queue) -> None:
        """Give a chunk to a thread; returns when there is room for another."""
        with self.needing_redis():
            held = _Held(job, queue, self.prepare_execution(job), Claim(_images(job)))
        with self._changed:
            self._held.append(held)
        self._show_state()
        # What failed before may have taken its worker down: it shall not take others with it again.
        is_alone = (job.retries_left or 0) < RETRIES
        if is_alone:
            self._wait_for(lambda: len(self._held) == 1)
        threading.Thread(target=self._make, args=[held], name=f"chunk {job.id}", daemon=True).start()
        self._wait_for(lambda: not self._held if is_alone else self._has_room)

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """In a burst, what is made may still enqueue more."""
        while True:
            held = len(self._held)
            if timeout is None:
                self.before_poll()
            result = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            if result is not None or timeout is not None or not held:
                return result
            self._wait_for(lambda held=held: len(self._held) < held)  # type: ignore[misc]

    def teardown(self) -> None:
        """Leave once no chunk is held, or after as long as a stop may take."""
        with self._changed:
            if self._held:
                self.maker.interrupt.set()
            self._changed.wait_for(lambda: not self._held, STOP_LIMIT_S)
        super().teardown()

    @property
    def _has_room(self) -> bool:
        """Whether the sampler should get more images than it and the chunks on their way to it have."""
        room = self.maker.sampler.room - sum(held.claim.unlined for held in self._held)
        passes = self.maker.sampler.threads * self.maker.sampler.micro_batch
        return room > 0 and len(self._held) < 8 * passes

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Until it holds, or the worker is to stop."""
        with self._changed:
            while not condition() and not self.maker.interrupt.is_set():
                self._changed.wait(_WAIT_S)

    def _show_state(self) -> None:
        """Whoever changed it last tells how it is by then."""
        with self._showing:
            self._presence.set_state("stopping" if self.is_stopping else "busy" if self._held else "idle")

    def _make(self, held: _Held) -> None:
        """A chunk's thread."""
        try:
            with chunk_made_by(self.maker, held.claim):
                self.perform_job(held.job, held.queue, held.execution)
            self._put_back(held)
        except RedisError as error:
            self._error = error
        except BaseException as error:
            logger.exception("chunk's thread ended")
            self._error = error
        finally:
            with self._changed:
                self._held.remove(held)
                self._changed.notify_all()
            self._show_state()

    def _put_back(self, held: _Held) -> None:
        """After RQ has closed the book on an interrupted chunk, enqueue it anew, ahead of the others."""
        request = held.claim.interrupted
        if request is not None:
            # Under the id the reaper looks for, or it would enqueue the chunk a second time.
            record = self.maker.ledger.record(request.job_id)
            attempt = int(record["attempt"]) if record else 1
            enqueue_chunk(held.queue, request, at_front=True, attempt=attempt)
            logger.info(
                "chunk put back", extra={"job_id": request.job_id, "chunk_index": request.chunk_index}
            )

    def _beat(self) -> None:
        """Send heartbeats for all chunks that are held."""
        while not self._left.wait(BEAT_S):
            with self._changed:
                held = [one for one in self._held if time.monotonic() - one.began > BEAT_S / 2]
            for one in held:
                if time.monotonic() - one.began > CHUNK_TIMEOUT_S + _OVERTIME_S:
                    end_stuck_process(CHUNK_TIMEOUT_S + _OVERTIME_S)
                self.beat(one.job, one.execution)


def _images(job: Job) -> int:
    """Read without validating: the payload may be what is wrong."""
    payload = job.args[0] if job.args else None
    count = payload.get("count") if isinstance(payload, dict) else None
    return count if isinstance(count, int) else 0
