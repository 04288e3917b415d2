"""A job's images one by one, in their order over all its parts, whether or not it has ended."""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from service.errors import JobNotFinishedError, JobUnsuccessfulError, NotFoundError, ResultLostError
from service.jobs.generation import RETRY_AFTER_S
from service.jobs.record import JobRecord
from service.jobs.regenerate import regenerate_hint, regenerate_link
from service.storage.store import ResultStore, lost_part
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, ImageRow, JobSpec

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image lies: in which chunk, and at which place of that."""

    chunk_index: int
    within: int


@dataclass(frozen=True, slots=True)
class ImagePage:
    """Rows with their places over the whole job. next_position: where to go on, None at the end."""

    rows: tuple[tuple[int, ImageRow], ...]
    next_position: int | None


class JobImages:
    """Reads chunks of jobs that run or have ended."""

    def __init__(self, results: ResultStore, ledger: JobLedger) -> None:
        self._results = results
        self._ledger = ledger

    def shards(self, job: JobRecord) -> list[ChunkResult]:
        """The finished chunks, in order."""
        return list(self._ledger.done_chunks(job.job_id).values())

    def shard(self, job: JobRecord, chunk_index: int) -> ChunkResult:
        """A finished chunk whose file is as long as it was.

        Raises NotFoundError for one the job does not have, JobNotFinishedError or JobUnsuccessfulError for
        one that is not made, ResultLostError.
        """
        if chunk_index >= job.spec.chunk_count:
            raise NotFoundError(
                f"Job {job.job_id} has shards 0 to {job.spec.chunk_count - 1}, not {chunk_index}."
            )
        chunk = self._done_chunk(job, chunk_index)
        if chunk is None:
            raise not_made(job, f"shard {chunk_index}")
        path = keys.shard_path(job.job_id, chunk_index)
        try:
            size = self._results.size(path)
        except OSError as error:
            raise self._lost(job, chunk_index, repr(error)) from error
        if size != chunk.shard_bytes:
            raise self._lost(job, chunk_index, f"{size} bytes instead of {chunk.shard_bytes}")
        return chunk

    def page(self, job: JobRecord, start: int, limit: int) -> ImagePage:
        """Rows of images `start` ... in order.

        While the job may go on, the page ends before the first image that is not made; of a job that has
        ended, those that never were are left out. Raises ResultLostError.
        """
        done = self._ledger.done_chunks(job.job_id)
        rows: list[tuple[int, ImageRow]] = []
        for chunk_index, first in _chunks_from(job.spec, start):
            if chunk_index not in done:
                if not job.status.is_final:
                    return ImagePage(tuple(rows), max(start, first))
                continue
            for within, row in enumerate(self._rows(job, done[chunk_index]), start=first):
                if within < start:
                    continue
                if len(rows) == limit:
                    return ImagePage(tuple(rows), within)
                rows.append((within, row))
        return ImagePage(tuple(rows), None)

    def image(self, job: JobRecord, position: int) -> tuple[ImageRow, bytes]:
        """An image with its file. Raises as `shard` does."""
        if position >= job.spec.total:
            raise NotFoundError(f"Job {job.job_id} has images 0 to {job.spec.total - 1}, not {position}.")
        place = place_of(job.spec, position)
        chunk = self._done_chunk(job, place.chunk_index)
        if chunk is None:
            raise not_made(job, f"image {position}")
        row = self._rows(job, chunk)[place.within]
        try:
            with self._results.open(keys.shard_path(job.job_id, place.chunk_index)) as file:
                file.seek(row.offset)
                content = file.read(row.size_bytes)
        except OSError as error:
            raise self._lost(job, place.chunk_index, repr(error)) from error
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise self._lost(job, place.chunk_index, f"{row.file} has changed since it was made")
        return row, content

    def _done_chunk(self, job: JobRecord, chunk_index: int) -> ChunkResult | None:
        row = cast("str | None", self._ledger.redis.hget(keys.done_key(job.job_id), str(chunk_index)))
        return None if row is None else ChunkResult.model_validate_json(row)

    def _rows(self, job: JobRecord, chunk: ChunkResult) -> list[ImageRow]:
        index = chunk.chunk_index
        try:
            lines = self._results.read_sidecar(job.job_id, index, chunk.sidecar_sha256).splitlines()
            if len(lines) != chunk.count:
                raise ValueError(f"{len(lines)} rows for {chunk.count} images")
            return [ImageRow.model_validate(json.loads(line)) for line in lines]
        except (OSError, ValueError) as error:
            raise self._lost(job, index, repr(error)) from error

    def _lost(self, job: JobRecord, chunk_index: int, reason: str) -> ResultLostError:
        extra = {"job_id": job.job_id, "chunk_index": chunk_index, "reason": reason}
        logger.error("result lost", extra=extra)
        return lost_part(job.job_id, chunk_index)


def not_made(job: JobRecord, what: str) -> JobNotFinishedError | JobUnsuccessfulError:
    """Why a part of a job, or the whole, is not there."""
    if not job.status.is_final:
        return JobNotFinishedError(
            f"Job {job.job_id} is {job.status}, {job.done} of {job.spec.total} images are made; "
            f"{what} is not there yet.",
            retry_after_s=RETRY_AFTER_S,
        )
    reason = f" ({job.error['code']}: {job.error['message']})" if job.error else ""
    return JobUnsuccessfulError(
        f"Job {job.job_id} {job.status}{reason}; {what} was not made. {regenerate_hint(job)}",
        headers=regenerate_link(job),
    )


def place_of(spec: JobSpec, position: int) -> Place:
    """position: 0 ... spec.total - 1."""
    chunk_index = 0
    for part in spec.parts:
        if position < part.count:
            within, place = spec.place(part, position)
            return Place(chunk_index + within, place)
        position -= part.count
        chunk_index += spec.chunks_of(part)
    raise IndexError(position)


def _chunks_from(spec: JobSpec, position: int) -> Iterator[tuple[int, int]]:
    """Index and first image of each chunk, from the one with that image on."""
    first = chunk_index = 0
    for part in spec.parts:
        for within in range(spec.chunks_of(part)):
            _, count = spec.range_of(part, within)
            if first + count > position:
                yield chunk_index, first
            first += count
            chunk_index += 1
