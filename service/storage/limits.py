"""Room in the result store: how much there is for new images, and what is said where a job finds none.

What running jobs still need counts as used, so that jobs accepted together do not fill the disk together; the
rule is in the script that takes a job (`worker.contract.submit_script`).
"""

import asyncio
import time
from contextlib import suppress
from typing import Final

from service.errors import StoreFullError
from service.storage.store import ResultStore

UNKNOWN_SIDE_PX: Final = 256
_ROW_BYTES: Final = 2_048
"""Of an image besides its pixels: its row in the sidecar, its header in the tar, its origin in the file."""
_KEPT_S: Final = 1.0
"""How long the free space is taken for what it was: what workers write within it is little."""
_WHAT_TO_DO: Final = "Ask for fewer images, or delete jobs that are no longer needed (DELETE /jobs/{id})."


def guessed_bytes(side_px: int = UNKNOWN_SIDE_PX) -> float:
    """Of one image while none like it was measured: its raw pixels."""
    return float(side_px**2 * 3 + _ROW_BYTES)


class StorageLimits:
    """reserve_bytes: to be left free on the disk. max_bytes: that all results may take; 0 for no limit."""

    def __init__(self, results: ResultStore, *, reserve_bytes: int, max_bytes: int) -> None:
        self._results = results
        self._reserve_bytes = reserve_bytes
        self.max_bytes = max_bytes
        self._room: tuple[float, float | None] | None = None

    def room_bytes(self) -> float | None:
        """What new images may take on the disk, None for what nothing tells. Blocks as long as the disk."""
        free: int | None = None
        with suppress(OSError):  # a store that cannot be asked is told by /readyz and by the workers
            free = self._results.free_bytes()
        room = None if free is None else float(free - self._reserve_bytes)
        self._room = (time.monotonic(), room)
        return room

    async def room_bytes_soon(self) -> float | None:
        """As `room_bytes`, a second old at most; does not block."""
        if self._room is not None and time.monotonic() - self._room[0] < _KEPT_S:
            return self._room[1]
        return await asyncio.to_thread(self.room_bytes)

    def disk_full(self, n: int, expected: float, missing: float) -> StoreFullError:
        """missing: bytes of all images that are still to be stored, of which `expected` are the new ones."""
        free = (self._room[1] if self._room else None) or 0.0
        return StoreFullError(
            f"{n} images take about {_mb(expected)}; the result store has "
            f"{_mb(free + self._reserve_bytes)} free, of which {_mb(missing - expected)} go to accepted jobs "
            f"and {_mb(self._reserve_bytes)} stay free. {_WHAT_TO_DO}"
        )

    def limit_passed(self, n: int, expected: float, unfinished: float) -> StoreFullError:
        """unfinished: bytes of all jobs that have not ended, the new one's `expected` included."""
        return StoreFullError(
            f"{n} images take about {_mb(expected)}; with the jobs that are not finished that "
            f"makes {_mb(unfinished)}, and all results may have {_mb(self.max_bytes)}. {_WHAT_TO_DO}"
        )


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
