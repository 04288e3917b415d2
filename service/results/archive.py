"""A succeeded job's images as one archive: laid out from the sidecars its chunks left in the result store."""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from model_store.certificate import CERTIFICATE_FILE
from model_store.errors import ModelStoreError
from service.archives.contents import ChunkFiles
from service.archives.formats import FORMATS, FormatInfo
from service.archives.image_folder import image_folder
from service.archives.layout import Layout, WholeFile
from service.archives.npz import npz
from service.archives.webdataset import webdataset
from service.checkpoints.catalogue import ModelCatalogue
from service.errors import InvalidParameterError, ResultLostError
from service.jobs.record import JobRecord
from service.results.certificate import Certificates
from service.results.parquet_builds import ParquetBuilds, ParquetFile, ParquetSink
from service.storage.store import ResultStore, lost_part
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, ClassCount, ModelRef

logger = logging.getLogger(__name__)

_LAYOUT_VERSION = 2
"""Part of every ETag: to be raised when the same images come to be laid out otherwise."""
_KEPT_MEMBERS = 250_000
"""Of all kept layouts together, 300 bytes each: a resumed download asks for the same one again."""


@dataclass(frozen=True, slots=True)
class JobArchive:
    """A layout with the strong ETag of its bytes. sha256: of them, where known. path: of a stored file."""

    layout: Layout
    etag: str
    info: FormatInfo
    sha256: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class _Kept:
    """An archive with the size that each file must have which it is made of."""

    archive: JobArchive
    sizes: Mapping[str, int]


class JobArchives:
    """Archives of succeeded jobs; the last few layouts are kept."""

    def __init__(
        self,
        results: ResultStore,
        ledger: JobLedger,
        models: ModelCatalogue,
        certificates: Certificates,
        parquet: ParquetBuilds,
    ) -> None:
        self._results = results
        self._ledger = ledger
        self._models = models
        self._certificates = certificates
        self._parquet = parquet
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, job: JobRecord) -> JobArchive:
        """The archive of a succeeded job, in the format it was asked for.

        Raises ResultLostError if a file is missing or not as long as it was, ResultNotReadyError while a
        parquet file is being made.
        """
        if job.spec.format == "npz" and not job.spec.encoding.is_lossless:
            raise InvalidParameterError(
                f"npz holds the pixels that were drawn; {job.spec.encoding.format} of quality "
                f"{job.spec.encoding.quality} has lost them."
            )
        if job.spec.format == "parquet":
            return _stored(self._parquet.open(job, partial(self._write_parquet, job)))
        key = f"{job.job_id}/{job.attempt}"
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
        if kept is None:
            kept = self._keep(key, self._build(job))
        self._check_sizes(job, kept.sizes)
        return kept.archive

    def read(self, archive: JobArchive, start: int, stop: int) -> Iterator[bytes]:
        """Bytes [start, stop). Ends with ArchiveSourceError where a file is damaged."""
        yield from archive.layout.read(self._results.open, start, stop)

    def _keep(self, key: str, kept: _Kept) -> _Kept:
        with self._lock:
            self._kept[key] = kept
            while len(self._kept) > 1 and self._kept_members > _KEPT_MEMBERS:
                self._kept.popitem(last=False)
        return kept

    @property
    def _kept_members(self) -> int:
        return sum(len(kept.archive.layout.members) for kept in self._kept.values())

    def _build(self, job: JobRecord) -> _Kept:
        chunks = _Chunks(job, self._results, self._ledger.done_chunks(job.job_id))
        extra = {CERTIFICATE_FILE: self._certificates.certify(job)}
        classes = self._class_names(job.spec.model, job.spec.parts)
        fingerprint = hashlib.sha256(f"{job.spec.format} {_LAYOUT_VERSION} {' '.join(classes)}\n".encode())
        for content in extra.values():
            fingerprint.update(hashlib.sha256(content).digest())
        layout: Layout
        try:
            if job.spec.format == "tar":
                layout = webdataset(chunks, extra)
            elif job.spec.format == "npz":
                layout = npz(chunks, extra, classes)
            else:
                layout = image_folder(chunks, extra)
        except (OSError, ValueError, KeyError) as error:
            raise chunks.lost(error) from error
        fingerprint.update(chunks.digest.digest())
        archive = JobArchive(layout, f'"{fingerprint.hexdigest()[:32]}"', FORMATS[job.spec.format])
        return _Kept(archive, chunks.sizes)

    def _write_parquet(self, job: JobRecord, sink: ParquetSink) -> None:
        from service.archives.parquet import write_parquet

        chunks = _Chunks(job, self._results, self._ledger.done_chunks(job.job_id))
        extra = {CERTIFICATE_FILE: self._certificates.certify(job)}
        classes = self._class_names(job.spec.model, job.spec.parts)
        write_parquet(cast("BinaryIO", sink), chunks, self._results.open, extra, classes, sink.go_on)

    def _check_sizes(self, job: JobRecord, sizes: Mapping[str, int]) -> None:
        present = self._results.sizes(job.job_id)
        for path, size in sizes.items():
            if present.get(path) != size:
                reason = f"has {present[path]} bytes instead of {size}" if path in present else "is missing"
                logger.error("result lost", extra={"job_id": job.job_id, "path": path, "reason": reason})
                raise lost_part(job.job_id, int(path.rsplit("/", 1)[-1].split(".")[0]))

    def _class_names(self, model: ModelRef, parts: tuple[ClassCount, ...]) -> list[str]:
        """In the order of their labels. Where the checkpoint is gone, others than the job's get a number."""
        try:
            checkpoint = self._models.by_digest(model.digest)
            return list(checkpoint.manifest.classes)
        except ModelStoreError:
            known = {part.class_index: part.class_slug for part in parts}
            return [known.get(label, f"class_{label}") for label in range(max(known) + 1)]


class _Chunks:
    """Goes once through a job's chunks; knows afterwards what they were.

    digest: of all sidecars and shards. sizes: of all files, by path.
    """

    def __init__(self, job: JobRecord, results: ResultStore, done: Mapping[int, ChunkResult]) -> None:
        self._job = job
        self._results = results
        self._done = done
        self._index = 0
        self.digest = hashlib.sha256()
        self.sizes: dict[str, int] = {}

    def __iter__(self) -> Iterator[ChunkFiles]:
        job_id = self._job.job_id
        for index in range(self._job.spec.chunk_count):
            self._index = index
            chunk = self._done[index]
            shard, sidecar = keys.shard_path(job_id, index), keys.sidecar_path(job_id, index)
            content = self._results.read_sidecar(job_id, index, chunk.sidecar_sha256)
            self.digest.update(hashlib.sha256(content).digest() + bytes.fromhex(chunk.shard_sha256))
            self.sizes |= {shard: chunk.shard_bytes, sidecar: len(content)}
            yield ChunkFiles.parse(shard, sidecar, content, chunk.count)

    def lost(self, error: Exception) -> ResultLostError:
        """For what was raised on the way."""
        logger.error("result lost", extra={"job_id": self._job.job_id, "reason": repr(error)})
        return lost_part(self._job.job_id, self._index)


def _stored(file: ParquetFile) -> JobArchive:
    return JobArchive(
        WholeFile(file.path, file.size_bytes),
        f'"{file.sha256}"',
        FORMATS["parquet"],
        file.sha256,
        file.path,
    )
