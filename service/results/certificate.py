"""Makes the certificate of a succeeded job, once: what its chunks left, what its checkpoint's report says."""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, cast

from redis import Redis

from model_store.certificate import STATEMENT, ClassQuality, JudgedFigures, RunningDigest
from model_store.errors import ModelStoreError
from model_store.report import ExtractorReport, QualityReport
from service.checkpoints.catalogue import ModelCatalogue
from service.jobs.record import JobRecord
from service.results.signing import SigningKey
from service.storage.store import ResultStore, lost_part
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, ModelRef

logger = logging.getLogger(__name__)


class Certificates:
    """Certificates of succeeded jobs; a finished one is kept in Redis for as long as the job's images.

    clock: epoch seconds.
    """

    def __init__(
        self,
        redis: Redis,
        ledger: JobLedger,
        results: ResultStore,
        models: ModelCatalogue,
        signing_key: SigningKey,
        clock: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._ledger = ledger
        self._results = results
        self._models = models
        self.signing_key = signing_key
        self._clock = clock

    def certify(self, job: JobRecord) -> bytes:
        """The certificate of a succeeded job: the same bytes each time, whichever process is asked.

        Raises ResultLostError if a sidecar is missing or damaged, SettingsError if there is no key to sign
        with.
        """
        key = keys.certificate_key(job.job_id)
        kept = cast("str | None", self._redis.get(key))
        if kept is None:
            content = self.signing_key.sign(self._body(job)).decode()
            time_left_s = max(1, math.ceil(job.expires_at - self._clock()))
            # Of two processes that make it at once, perhaps with two keys, the first one's is kept.
            self._redis.set(key, content, nx=True, ex=time_left_s)
            kept = cast("str | None", self._redis.get(key)) or content
        return kept.encode()

    def _body(self, job: JobRecord) -> dict[str, Any]:
        spec = job.spec
        chunks = self._ledger.done_chunks(job.job_id)
        contents = self._read(job, chunks)
        quality = self._quality_of(spec.model)
        return {
            "version": 1,
            "statement": STATEMENT,
            "software": f"masan {version('masan')}",
            "job": job.job_id,
            "issued_at": _iso(datetime.fromtimestamp(job.finished_at or job.created_at, UTC)),
            "attempt": job.attempt,
            "model": spec.model.model_dump(),
            "n": spec.total,
            "seed": str(spec.seed),
            "truncation": spec.truncation,
            **({} if spec.walk is None else {"walk_to_seed": str(spec.walk.to_seed)}),
            "encoding": spec.encoding.model_dump(),
            "gate": str(spec.gate),
            "classes": _classes(list(chunks.values()), quality),
            "report_at": _iso(quality.report.created_at) if quality.report else None,
            "quality_reason": quality.reason,
            "manifest_sha256": contents.manifest.hexdigest(),
            "images_sha256": contents.images.hexdigest,
            "pixels_sha256": contents.pixels.hexdigest,
            "shards": [chunks[index].shard_sha256 for index in range(spec.chunk_count)],
            "devices": sorted(contents.devices),
            "torch_versions": sorted(contents.torch_versions),
        }

    def _read(self, job: JobRecord, chunks: dict[int, ChunkResult]) -> "_Contents":
        contents = _Contents()
        try:
            for index in range(job.spec.chunk_count):
                chunk = chunks[index]
                rows = self._results.read_sidecar(job.job_id, index, chunk.sidecar_sha256)
                contents.add(rows, chunk.count)
        except (OSError, ValueError, KeyError) as error:
            logger.error("result lost", extra={"job_id": job.job_id, "reason": repr(error)})
            raise lost_part(job.job_id, index) from error
        return contents

    def _quality_of(self, model: ModelRef) -> "_Quality":
        try:
            checkpoint = self._models.resolve(model.reference)
            report = self._models.report(checkpoint)
        except ModelStoreError as error:
            logger.warning("no report for a certificate", extra={"reason": str(error)})
            return _Quality(None, f"the report of {model.reference} cannot be read")
        if checkpoint.digest != model.digest:
            return _Quality(None, f"{model.reference} is another checkpoint by now")
        if report is None:
            return _Quality(None, f"{model.reference} has no quality report")
        return _Quality(report, None)


@dataclass
class _Contents:
    """Digests over all images, gathered sidecar by sidecar."""

    manifest: Any = field(default_factory=hashlib.sha256)
    images: RunningDigest = field(default_factory=RunningDigest)
    pixels: RunningDigest = field(default_factory=RunningDigest)
    devices: set[str] = field(default_factory=set)
    torch_versions: set[str] = field(default_factory=set)

    def add(self, sidecar: bytes, count: int) -> None:
        """Raises ValueError, KeyError for a sidecar that does not hold `count` image rows."""
        rows = [json.loads(line) for line in sidecar.splitlines()]
        if len(rows) != count:
            raise ValueError(f"{len(rows)} rows instead of {count}")
        self.manifest.update(sidecar)
        for row in rows:
            self.images.add(row["sha256"])
            self.pixels.add(row["pixels_sha256"])
            self.devices.add(row["device"])
            self.torch_versions.add(row["torch_version"])


@dataclass(frozen=True, slots=True)
class _Quality:
    """A checkpoint's report, or the reason why there is none."""

    report: QualityReport | None
    reason: str | None

    def of_class(self, slug: str) -> dict[str, Any] | None:
        """None without a report of that class."""
        report = self.report
        if report is None or slug not in report.primary.classes:
            return None
        checks = report.checks.get(slug)
        quality = ClassQuality(
            figures=tuple(_judged(extractor, slug) for extractor in report.extractors),
            checked_n=checks.n if checks else None,
            label_agreement_ratio=checks.label_agreement_ratio if checks else None,
            memorized_ratio=checks.memorized_ratio if checks else None,
            scale_bar_ratio=checks.scale_bar_ratio if checks else None,
        )
        return quality.model_dump(mode="json")


def _classes(chunks: list[ChunkResult], quality: _Quality) -> dict[str, Any]:
    """What each class got, in the order of its slugs."""
    classes = {}
    for slug in sorted({chunk.class_slug for chunk in chunks}):
        own = [chunk for chunk in chunks if chunk.class_slug == slug]
        n, rejected = sum(chunk.count for chunk in own), sum(chunk.rejected for chunk in own)
        rejections: Counter[str] = Counter()
        for chunk in own:
            rejections.update({str(reason): count for reason, count in chunk.rejections.items()})
        classes[slug] = {
            "n": n,
            "rejected": rejected,
            "rejections": dict(rejections),
            "acceptance_ratio": round(n / (n + rejected), 6),
            "quality": quality.of_class(slug),
        }
    return classes


def _judged(extractor: ExtractorReport, slug: str) -> JudgedFigures:
    figures = extractor.classes[slug]
    return JudgedFigures(
        extractor=extractor.extractor,
        extractor_sha256=extractor.extractor_sha256,
        reference_digest=extractor.reference_digest,
        n_real=figures.n_real,
        n_fake=figures.n_fake,
        frechet_distance=figures.frechet_distance,
        floor=figures.floor,
        floor_n=figures.floor_n,
        kid=figures.kid,
        kid_sd=figures.kid_sd,
        kid_floor=figures.kid_floor,
        coverage=figures.coverage,
        recall=figures.recall,
    )


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
