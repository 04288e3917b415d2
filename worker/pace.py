"""How long a worker was busy and how fast it was, from chunks that are made beside one another."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Pace:
    """For chunks of many threads. busy: told of seconds in which there was a chunk. speed: of images made
    and the seconds that they took. monotonic: seconds, of any origin."""

    def __init__(
        self,
        *,
        busy: Callable[[float], object],
        speed: Callable[[int, float], object],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._busy = busy
        self._speed = speed
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._chunks = 0
        self._told_at = 0.0
        self._since = 0.0
        self._images = 0

    @contextmanager
    def chunk(self) -> Iterator[None]:
        """Around the making of a chunk."""
        with self._lock:
            self._tell()
            if not self._chunks:
                self._since, self._images = self._told_at, 0
            self._chunks += 1
        try:
            yield
        finally:
            with self._lock:
                self._tell()
                self._chunks -= 1

    def made(self, images: int, *, is_telling: bool) -> None:
        """A chunk's images are made. is_telling: enough of them for a speed, with what was made beside."""
        with self._lock:
            self._images += images
            if is_telling:
                now = self._monotonic()
                self._speed(self._images, now - self._since)
                self._since, self._images = now, 0

    def _tell(self) -> None:
        now = self._monotonic()
        if self._chunks:
            self._busy(now - self._told_at)
        self._told_at = now
