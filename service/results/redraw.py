"""Draws one image again from its id: a job of one image that nobody sees, deleted once it was answered."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from fastapi.concurrency import run_in_threadpool

from model_store.errors import ModelNotFoundError
from model_store.image_id import TRUNCATION_STEPS, ImageId
from model_store.store import Checkpoint
from service.access.key_ring import Principal, tenant_of
from service.access.rate_limits import RateLimits
from service.checkpoints.catalogue import ModelCatalogue
from service.errors import (
    FieldError,
    InvalidParameterError,
    NotFoundError,
    RedrawFailedError,
    RedrawTimeoutError,
)
from service.jobs.generation import GenerationRequest
from service.jobs.lifecycle import JobService
from service.jobs.record import JobRecord
from service.results.images import JobImages
from service.storage.store import ResultStore
from worker.contract import keys
from worker.contract.messages import (
    ClassCount,
    GateLevel,
    ImageEncoding,
    ImageRow,
    JobSpec,
    JobStatus,
    Priority,
)

logger = logging.getLogger(__name__)

DEFAULT_WAIT_S = 30
_KEPT_S = 600.0
"""For how long a redrawn image lies in the store if this process dies before it deletes it."""
_RECORD_S = 120.0
"""For how long its record tells the limits of its key that it has ended."""
_POLL_S = 0.05
_LOOK_AT_JOBS = 100
"""Newest jobs that are asked whether one of them delivered the image: one round trip."""
_LOOK_AT_FILES = 3
_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class RedrawnImage:
    """An image drawn again. content: the file, of which `row` tells."""

    checkpoint: Checkpoint
    row: ImageRow
    content: bytes


class Redrawer:
    """Draws images again through the ordinary queue. clock: epoch seconds. stopping: it is to end."""

    def __init__(
        self,
        jobs: JobService,
        limits: RateLimits,
        models: ModelCatalogue,
        results: ResultStore,
        images: JobImages,
        clock: Callable[[], float],
        stopping: threading.Event,
    ) -> None:
        self._jobs = jobs
        self._limits = limits
        self._models = models
        self._results = results
        self._images = images
        self._clock = clock
        self._stopping = stopping

    def checkpoint_of(self, image_id: ImageId) -> Checkpoint:
        """What drew the image. Raises NotFoundError with the checkpoints there are, ManifestInvalidError."""
        try:
            return self._models.by_digest(image_id.digest)
        except ModelNotFoundError as error:
            reason = f"no checkpoint here has a digest that begins with {image_id.digest}"
            raise NotFoundError(
                f"image_id: {reason}; there is {', '.join(error.known) or 'none'}.",
                errors=[FieldError("image_id", reason, list(error.known) or None)],
            ) from error

    async def redraw(
        self, image_id: ImageId, encoding: ImageEncoding, *, principal: Principal, wait_s: float
    ) -> RedrawnImage:
        """Draw the image and wait for it.

        principal: whom it counts for, as an image of theirs. Raises NotFoundError for an id of which there
        can be no image here, RedrawTimeoutError, RedrawFailedError, ResultLostError, and what refuses any
        job: NoWorkerError, QueueFullError and others.
        """
        checkpoint = await run_in_threadpool(self.checkpoint_of, image_id)
        request = self._request(checkpoint, image_id, encoding, tenant_of(principal), wait_s)
        job = await run_in_threadpool(self._submit, request, principal)
        try:
            status = await self._wait(job.job_id, wait_s)
            if status is not JobStatus.SUCCEEDED:
                raise self._why_not(job.job_id, image_id, status, wait_s)
            row, content = await run_in_threadpool(self._images.image, job, 0)
            if row.image_id != str(image_id):
                raise RedrawFailedError(f"A worker of another release drew {row.image_id}, not {image_id}.")
        finally:
            await run_in_threadpool(self._forget, job.spec)
        return RedrawnImage(checkpoint, row, content)

    def delivered(self, image_id: ImageId, tenant: str) -> ImageRow | None:
        """The image's row in the manifest of one of the tenant's newest jobs, if one of them holds it."""
        newest = self._jobs.redis.zrevrange(keys.tenant_index_key(tenant), 0, _LOOK_AT_JOBS - 1)
        files = [
            (job.job_id, chunk_index)
            for job in self._jobs.records(cast("list[str]", newest))
            if (chunk_index := chunk_of(job.spec, image_id)) is not None
        ]
        for job_id, chunk_index in files[:_LOOK_AT_FILES]:
            try:
                rows = self._results.read_sidecar(job_id, chunk_index).splitlines()
                found = (ImageRow.model_validate_json(row) for row in rows)
                delivered = next((row for row in found if row.image_id == str(image_id)), None)
            except (OSError, ValueError):
                continue  # not made yet, expired or damaged: nothing to compare with
            if delivered is not None:
                return delivered
        return None

    def _request(
        self,
        checkpoint: Checkpoint,
        image_id: ImageId,
        encoding: ImageEncoding,
        tenant: str,
        wait_s: float,
    ) -> GenerationRequest:
        """Raises NotFoundError for an id whose class or truncation the checkpoint does not have."""
        manifest = checkpoint.manifest
        if image_id.class_slug not in manifest.classes:
            reason = f"{manifest.reference} has no class {image_id.class_slug}"
            field = FieldError("image_id", reason, list(manifest.classes))
            raise NotFoundError(f"image_id: {reason}; it has {', '.join(manifest.classes)}.", errors=[field])
        request = GenerationRequest(
            checkpoint=checkpoint,
            parts=(
                ClassCount(
                    class_slug=image_id.class_slug,
                    class_index=manifest.class_index(image_id.class_slug),
                    count=1,
                    start=image_id.index,
                    attempt=image_id.attempt,
                ),
            ),
            seed=image_id.seed,
            truncation=image_id.truncation,
            walk=image_id.walk,
            encoding=encoding,
            gate=GateLevel.OFF,  # what was delivered has passed; and another image would not be this one
            priority=Priority.INTERACTIVE,
            deadline=self._clock() + wait_s,
            tenant=tenant,
            is_listed=False,
            ttl_s=_KEPT_S,
        )
        try:
            request.check()
        except InvalidParameterError as error:
            raise NotFoundError(
                f"image_id: {error.detail}", errors=[FieldError("image_id", error.detail)]
            ) from error
        return request

    def _submit(self, request: GenerationRequest, principal: Principal) -> JobRecord:
        now = self._clock()
        return self._limits.admit(principal, 1, now, lambda: self._jobs.submit(request, now))

    async def _wait(self, job_id: str, wait_s: float) -> JobStatus | None:
        """The job's status once it has ended, or after `wait_s` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while True:
            status = await run_in_threadpool(self._jobs.ledger.status, job_id)
            if status is None or status.is_final or loop.time() >= until or self._stopping.is_set():
                return status
            await asyncio.sleep(_POLL_S)

    def _why_not(
        self, job_id: str, image_id: ImageId, status: JobStatus | None, wait_s: float
    ) -> RedrawTimeoutError | RedrawFailedError:
        if status is JobStatus.FAILED:
            error = JobRecord.from_hash(self._jobs.ledger.record(job_id) or {}).error or {}
            why = f" ({error['code']}: {error['message']})" if error else ""
            return RedrawFailedError(f"{image_id} could not be drawn{why}.")
        return RedrawTimeoutError(
            f"{image_id} was not drawn within {wait_s:g} s; the workers are busy. Try again, or wait longer "
            "with `Prefer: wait=60`.",
            retry_after_s=_RETRY_AFTER_S,
        )

    def _forget(self, spec: JobSpec) -> None:
        """Delete what an ended job left. One that still runs is stopped, and collected once it has ended."""
        now, ledger, job_id = self._clock(), self._jobs.ledger, spec.job_id
        ledger.delete(job_id, now=now)
        self._jobs.stop(job_id, now)
        if ledger.collect(job_id, now=now):
            self._results.delete_job(job_id)
            ledger.forget(spec, record_ttl_s=_RECORD_S)


def chunk_of(spec: JobSpec, image_id: ImageId) -> int | None:
    """The chunk of a job that makes the image, None if the job does not make it."""
    is_same = (
        spec.model.digest.startswith(image_id.digest)
        and spec.seed == image_id.seed
        and round(spec.truncation * TRUNCATION_STEPS) == round(image_id.truncation * TRUNCATION_STEPS)
        and spec.walk == image_id.walk
    )
    if not is_same:
        return None
    first_chunk = 0
    for part in spec.parts:
        within = image_id.index - part.start
        if part.class_slug == image_id.class_slug and 0 <= within < part.count:
            return first_chunk + spec.place(part, within)[0]
        first_chunk += spec.chunks_of(part)
    return None
