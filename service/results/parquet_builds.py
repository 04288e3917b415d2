"""Parquet files of succeeded jobs: made once, by whoever asks first, then kept with the job's other files.

A lock in Redis keeps other processes from making the same file; its holder renews it chunk by chunk, so that
it is free again soon after a holder died. The file takes its place whole, and only then does the job's record
say what it is.
"""

import errno
import hashlib
import io
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from redis import Redis
from redis.exceptions import RedisError
from redis.lock import Lock

from service.archives.sources import ArchiveSourceError
from service.errors import RequestError, ResultLostError, ResultNotReadyError
from service.jobs.generation import RETRY_AFTER_S
from service.jobs.record import JobRecord
from service.storage.store import ResultStore
from worker.contract import keys

logger = logging.getLogger(__name__)

WAIT_S: Final = 5.0
"""How long a request waits for the file; what takes longer is asked for again."""
_LOCK_S: Final = 30.0
"""Far above what one chunk takes."""
_POLL_S: Final = 0.1
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

# KEYS: job, counters. ARGV: sha256, bytes. Returns 0 if the job's files were collected meanwhile. The bytes
# count as the job's others do.
_RECORD: Final = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[1], 'collecting') == 1 or redis.call('HEXISTS', KEYS[1], 'collected') == 1 then
  return 0
end
local growth = ARGV[2] - (redis.call('HGET', KEYS[1], 'parquet_bytes') or 0)
redis.call('HSET', KEYS[1], 'parquet_sha256', ARGV[1], 'parquet_bytes', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'stored_bytes', growth)
redis.call('HINCRBY', KEYS[2], 'result_bytes', growth)
return 1
"""


@dataclass(frozen=True, slots=True)
class ParquetFile:
    """A file in the result store that is what it was when it was made, as far as its size tells."""

    path: str
    size_bytes: int
    sha256: str


class BuildStoppedError(Exception):
    """The process is to end, or another one has taken the lock."""


class ParquetSink(io.RawIOBase):
    """Where a file is written to, which counts and digests it on the way."""

    def __init__(self, file: BinaryIO, go_on: Callable[[], None]) -> None:
        super().__init__()
        self._file = file
        self._go_on = go_on
        self._sha256 = hashlib.sha256()
        self._size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def go_on(self) -> None:
        """To be called between chunks. Raises BuildStoppedError if the file is not to be made any more."""
        self._go_on()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size_bytes

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        self._file.write(content)
        self._sha256.update(content)
        self._size_bytes += len(content)
        return len(content)


@dataclass
class _Build:
    """A file that a thread of this process is making. error: what a client is told if it failed."""

    done: threading.Event
    error: RequestError | None = None


class ParquetBuilds:
    """Makes and finds parquet files. stopping: set once the process is to end."""

    def __init__(
        self, redis: Redis, results: ResultStore, stopping: threading.Event, wait_s: float = WAIT_S
    ) -> None:
        self._redis = redis
        self._results = results
        self._stopping = stopping
        self._wait_s = wait_s
        self._record = redis.register_script(_RECORD)
        self._builds: dict[str, _Build] = {}
        self._guard = threading.Lock()

    def open(self, job: JobRecord, write: Callable[[ParquetSink], None]) -> ParquetFile:
        """The job's file; `write` makes it if it is not there. Waits for `wait_s`.

        Raises ResultNotReadyError while it is being made, here or elsewhere, and what became of making it:
        ResultLostError.
        """
        deadline = time.monotonic() + self._wait_s
        while True:
            file = self._find(job)
            if file is not None:
                return file
            build = self._begin(job, write)
            if build is not None and build.done.wait(max(0.0, deadline - time.monotonic())):
                if build.error is not None:
                    raise build.error
                continue
            if time.monotonic() >= deadline:
                raise ResultNotReadyError(
                    f"The parquet file of job {job.job_id} is being made; ask again in a moment.",
                    retry_after_s=RETRY_AFTER_S,
                )
            time.sleep(_POLL_S)

    def _find(self, job: JobRecord) -> ParquetFile | None:
        fields = ("parquet_sha256", "parquet_bytes")
        row = cast("list[str | None]", self._redis.hmget(keys.job_key(job.job_id), *fields))
        if row[0] is None or row[1] is None:
            return None
        file = ParquetFile(keys.parquet_path(job.job_id), int(row[1]), row[0])
        # One that is not as long as it was is made again: the shards are what counts.
        is_whole = self._results.sizes(job.job_id).get(file.path) == file.size_bytes
        return file if is_whole else None

    def _begin(self, job: JobRecord, write: Callable[[ParquetSink], None]) -> _Build | None:
        """The build under way in this process, perhaps begun now; None if another process has the lock."""
        with self._guard:
            build = self._builds.get(job.job_id)
            if build is not None:
                return build
            lock = self._redis.lock(f"masan:parquet:{job.job_id}", timeout=_LOCK_S, thread_local=False)
            if not lock.acquire(blocking=False):
                return None
            build = self._builds[job.job_id] = _Build(threading.Event())
        thread = threading.Thread(
            target=self._run, args=(job, write, build, lock), name=f"parquet-{job.job_id}", daemon=True
        )
        thread.start()
        return build

    def _run(self, job: JobRecord, write: Callable[[ParquetSink], None], build: _Build, lock: Lock) -> None:
        started = time.monotonic()
        try:
            if self._find(job) is not None:  # made by whoever had the lock when it was last looked for
                return
            size_bytes = self._make(job, write, lock)
            extra: dict[str, Any] = {"job_id": job.job_id, "size_bytes": size_bytes}
            logger.info("parquet made", extra=extra | {"seconds": round(time.monotonic() - started, 3)})
        except Exception as error:
            build.error = _error_of(job, error)
            logger.error("parquet not made", extra={"job_id": job.job_id, "reason": repr(error)})
        finally:
            with self._guard:
                self._builds.pop(job.job_id, None)
            _release(lock)
            build.done.set()

    def _make(self, job: JobRecord, write: Callable[[ParquetSink], None], lock: Lock) -> int:
        def go_on() -> None:
            if self._stopping.is_set():
                raise BuildStoppedError("the process ends")
            lock.reacquire()

        path = keys.parquet_path(job.job_id)
        with self._results.creating(path) as file:
            sink = ParquetSink(file, go_on)
            write(sink)
        if not self._record(
            keys=[keys.job_key(job.job_id), keys.COUNTERS], args=[sink.sha256, sink.size_bytes]
        ):
            # The job's other files are gone by now; this one must not stay alone.
            self._results.delete_job(job.job_id)
            raise BuildStoppedError("the job has expired")
        return sink.size_bytes


def _release(lock: Any) -> None:
    try:
        lock.release()
    except RedisError as error:  # it runs out by itself
        logger.warning("lock not released", extra={"reason": str(error)})


def _error_of(job: JobRecord, error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    if isinstance(error, (ArchiveSourceError, ValueError, KeyError)):
        return ResultLostError(f"Files of job {job.job_id} are missing or damaged; ask for the images again.")
    if isinstance(error, OSError) and error.errno not in _NO_ROOM:
        return ResultLostError(
            f"The parquet file of job {job.job_id} cannot be made: the result store does not answer."
        )
    what = "there is no room left" if isinstance(error, OSError) else "making it was cut short"
    return ResultNotReadyError(
        f"The parquet file of job {job.job_id} is not there yet: {what}.", retry_after_s=10 * RETRY_AFTER_S
    )
