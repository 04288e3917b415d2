"""Whether a job's images will find room in the result store; asked before the job is accepted.

What running jobs still need counts as used, so that jobs accepted together do not fill the disk together.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self, cast

from redis import Redis

from service.errors import StoreFullError
from service.result_store import ResultStore
from worker.contract import keys
from worker.contract.messages import ImageEncoding, JobSpec
from worker.contract.tallies import encoding_label

_UNKNOWN_SIDE_PX: Final = 256
_ROW_BYTES: Final = 2_048
"""Of an image besides its pixels: its row in the sidecar, its header in the tar, its origin in the file."""
_WHAT_TO_DO: Final = "Ask for fewer images, or delete jobs that are no longer needed (DELETE /jobs/{id})."


@dataclass(frozen=True, slots=True)
class StorageNeed:
    """Images that are still to be stored.

    model: `name@version`. total: of their job, stored ones included. side_px: of an image.
    """

    model: str
    encoding: ImageEncoding
    images: int
    total: int
    side_px: int = _UNKNOWN_SIDE_PX

    @classmethod
    def of(cls, spec: JobSpec, images: int) -> Self:
        """For `images` more images of a job."""
        return cls(spec.model.reference, spec.encoding, images, spec.total)


class StorageLimits:
    """reserve_bytes: to be left free on the disk. max_bytes: that all results may take; 0 for no limit."""

    def __init__(self, redis: "Redis", results: ResultStore, *, reserve_bytes: int, max_bytes: int) -> None:
        self._redis = redis
        self._results = results
        self._reserve_bytes = reserve_bytes
        self._max_bytes = max_bytes

    def admit(self, new: StorageNeed, active: Sequence[StorageNeed]) -> None:
        """Raises StoreFullError if the images of `new` would not fit beside those of the active jobs."""
        needs = (new, *active)
        sizes = [self._image_bytes(need) for need in needs]
        expected = new.images * sizes[0]
        missing = sum(need.images * size for need, size in zip(needs, sizes, strict=True))
        free: int | None = None
        with suppress(OSError):  # a store that cannot be asked is told by /readyz and by the workers
            free = self._results.free_bytes()
        if free is not None and missing > free - self._reserve_bytes:
            raise StoreFullError(
                f"{new.images} images take about {_mb(expected)}; the result store has {_mb(free)} free, of "
                f"which {_mb(missing - expected)} go to accepted jobs and {_mb(self._reserve_bytes)} stay "
                f"free. {_WHAT_TO_DO}"
            )
        unfinished = sum(need.total * size for need, size in zip(needs, sizes, strict=True))
        if self._max_bytes and unfinished > self._max_bytes:
            raise StoreFullError(
                f"{new.images} images take about {_mb(expected)}; with the jobs that are not finished that "
                f"makes {_mb(unfinished)}, and all results may have {_mb(self._max_bytes)}. {_WHAT_TO_DO}"
            )

    def _image_bytes(self, need: StorageNeed) -> float:
        """As measured on stored images of that checkpoint and encoding; before the first, of raw pixels."""
        label = f"{need.model}:{encoding_label(need.encoding)}"
        row = self._redis.hmget(keys.COUNTERS, f"image_bytes:{label}", f"images_stored:{label}")
        stored_bytes, images = cast("list[str | None]", row)
        if stored_bytes is None or images is None:
            return float(need.side_px**2 * 3 + _ROW_BYTES)
        return int(stored_bytes) / int(images)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
