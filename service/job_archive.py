"""Makes a finished job's zip layout from the sidecars its chunks left in the result store."""

import hashlib
import logging
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from service.archive import ArchiveSourceError, Entry, Piece, ZipLayout
from service.errors import ResultLostError
from service.jobs import JobRecord
from service.result_store import ResultStore
from worker.contract import keys
from worker.contract.ledger import JobLedger
from worker.contract.messages import ChunkResult, ImageRow

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.jsonl"
_KEPT_LAYOUTS = 4
"""A layout of 50,000 images takes some 20 MB; resumed downloads ask for the same one again."""


@dataclass(frozen=True, slots=True)
class JobArchive:
    """A layout with the strong ETag of its bytes."""

    layout: ZipLayout
    etag: str


class JobArchives:
    """Archives of succeeded jobs; the last few layouts are kept."""

    def __init__(self, results: ResultStore, ledger: JobLedger) -> None:
        self._results = results
        self._ledger = ledger
        self._kept: OrderedDict[str, JobArchive] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, job: JobRecord) -> JobArchive:
        """The archive of a succeeded job. Raises ResultLostError if a sidecar is missing or unreadable."""
        key = f"{job.job_id}/{job.attempt}"
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        archive = self._build(job)
        with self._lock:
            self._kept[key] = archive
            while len(self._kept) > _KEPT_LAYOUTS:
                self._kept.popitem(last=False)
        return archive

    def read(self, archive: JobArchive, start: int, stop: int) -> Iterator[bytes]:
        """Bytes [start, stop). Ends with ArchiveSourceError where a shard is damaged."""
        try:
            yield from archive.layout.read(self._results.open, start, stop)
        except ArchiveSourceError as error:
            # The status line is long sent: cutting the connection short is all that tells the client.
            logger.error("shard damaged", extra={"path": error.path, "reason": error.reason})
            raise

    def _build(self, job: JobRecord) -> JobArchive:
        chunks = self._ledger.done_chunks(job.job_id)
        sidecars: list[Piece] = []
        images: list[Entry] = []
        manifest_crc = 0
        try:
            for index in range(job.spec.chunk_count):
                content = self._results.read_sidecar(job.job_id, index)
                manifest_crc = zlib.crc32(content, manifest_crc)
                sidecars.append(Piece(keys.sidecar_path(job.job_id, index), 0, len(content)))
                images.extend(_image_entries(job.job_id, chunks[index], content))
        except (OSError, ValueError, KeyError) as error:
            logger.error("result lost", extra={"job_id": job.job_id, "reason": repr(error)})
            raise ResultLostError(
                f"Part {index} of job {job.job_id} is missing or damaged; ask for the images again."
            ) from error
        layout = ZipLayout([Entry(MANIFEST_NAME, manifest_crc, tuple(sidecars)), *images])
        fingerprint = hashlib.sha256(layout.directory)
        for chunk in chunks.values():
            fingerprint.update(bytes.fromhex(chunk.shard_sha256))
        return JobArchive(layout, f'"{fingerprint.hexdigest()[:32]}"')


def _image_entries(job_id: str, chunk: ChunkResult, sidecar: bytes) -> list[Entry]:
    shard = keys.shard_path(job_id, chunk.chunk_index)
    rows = [ImageRow.model_validate_json(line) for line in sidecar.splitlines()]
    if len(rows) != chunk.count:
        raise ValueError(f"{len(rows)} rows for {chunk.count} images")
    return [Entry(row.file, row.crc32, (Piece(shard, row.offset, row.size_bytes),)) for row in rows]
