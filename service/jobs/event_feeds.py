"""One reader of Redis for all clients that follow jobs: an event is fetched, and made into a frame, once.

Each job that is followed has a feed, which holds its newest events. A client that has fallen out of the feed,
or has just come, reads from the stream itself until the feed has what it lacks.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from worker.contract import keys

BATCH_EVENTS: Final = 100
LOOK_S: Final = 1.0
"""A wait is cut into pieces of it, to notice what no event tells."""
_KEPT_EVENTS: Final = 2 * BATCH_EVENTS
_PAUSE_S: Final = 0.5
"""Between two attempts to reach Redis."""
_NUDGE_S: Final = 0.02
"""Between two attempts to make the reader look at a feed that has just been opened."""

Frame = Callable[[str, str, str, str], bytes]
"""Makes the bytes that are sent of a job id, an event's id, its name and its data."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a stream. data: JSON. frame: as it is sent."""

    id: str
    name: str
    frame: bytes

    @property
    def place(self) -> tuple[int, int]:
        return place(self.id)


class Feed:
    """The newest events of one job. floor: everything after it is here; None before the reader is at it."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.floor: str | None = None
        self.last = ""
        self.clients = 0
        self._events: deque[Event] = deque()
        self._waiting: set[asyncio.Future[None]] = set()

    def begin(self, floor: str) -> None:
        """The reader goes on from there. What came before is in the stream: all look again."""
        self.floor = self.last = floor
        self._wake_all()

    def add(self, events: list[Event]) -> None:
        """What the reader has found; every client that waits goes on."""
        self._events.extend(events)
        self.last = events[-1].id
        while len(self._events) > _KEPT_EVENTS:
            self.floor = self._events.popleft().id
        self._wake_all()

    def has_all_after(self, after: str) -> bool:
        """Whether nothing that follows `after` has left the feed."""
        return self.floor is not None and place(after) >= place(self.floor)

    def since(self, after: str) -> list[Event]:
        """What follows `after`, at most a batch."""
        if self.last == after:
            return []
        start = place(after)
        newer = []
        for event in reversed(self._events):
            if event.place <= start:
                break
            newer.append(event)
        return newer[: -BATCH_EVENTS - 1 : -1]

    async def wait(self, seconds: float) -> None:
        """Until something is added, or for so long."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.add(waiter)
        timer = loop.call_later(seconds, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiting.discard(waiter)

    def _wake_all(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            _wake(waiter)


class EventFeeds:
    """The feeds of this process, and the task that fills them while there are any."""

    def __init__(self, redis: Redis, frame: Frame) -> None:
        self._redis = redis
        self._frame = frame
        self._feeds: dict[str, Feed] = {}
        self._reader: asyncio.Task[None] | None = None
        self._client_id: int | None = None

    @contextmanager
    def following(self, job_id: str) -> Iterator[Feed]:
        """The job's feed, read for as long as somebody follows it."""
        feed = self._feeds.setdefault(job_id, Feed(job_id))
        feed.clients += 1
        if self._reader is None or self._reader.done():
            self._reader = asyncio.get_running_loop().create_task(self._read_all())
        nudging = asyncio.get_running_loop().create_task(self._nudge(feed))
        try:
            yield feed
        finally:
            nudging.cancel()
            feed.clients -= 1
            if feed.clients == 0:
                self._feeds.pop(job_id, None)

    async def read(self, job_id: str, after: str) -> list[Event]:
        """The next events from the stream itself, at most a batch. Raises RedisError."""
        key = keys.events_key(job_id)
        answer = cast("Any", await self._redis.xread({key: after}, count=BATCH_EVENTS))
        return [event for _, rows in (answer or []) for event in self._events(job_id, rows)]

    async def aclose(self) -> None:
        """End the reader."""
        self._feeds.clear()  # a cancellation alone may get lost in Python 3.11's wait_for
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    async def _read_all(self) -> None:
        """Through an outage of Redis it goes on, from where every feed stands."""
        while self._feeds:
            try:
                async with self._redis.client() as redis:
                    self._client_id = await redis.client_id()
                    while self._feeds:
                        await self._read_some(redis)
            except (RedisError, OSError):
                await asyncio.sleep(_PAUSE_S)

    async def _read_some(self, redis: Redis) -> None:
        by_key = {keys.events_key(job_id): feed for job_id, feed in self._feeds.items()}
        for key, feed in by_key.items():
            if feed.floor is None:
                newest = cast("Any", await redis.xrevrange(key, count=1))
                feed.begin(newest[0][0] if newest else "0-0")
        places: Any = {key: feed.last for key, feed in by_key.items()}
        answer = await redis.xread(places, count=BATCH_EVENTS, block=int(1000 * LOOK_S))
        for key, rows in cast("Any", answer or []):
            feed = by_key[key]
            if rows:
                feed.add(self._events(feed.job_id, rows))

    async def _nudge(self, feed: Feed) -> None:
        """End the reader's wait, so that it begins anew with this feed, unless everybody has left it."""
        while feed.floor is None and feed.clients:  # a cancellation may get lost
            with suppress(RedisError):
                if self._client_id is not None:
                    await self._redis.client_unblock(self._client_id)
            await asyncio.sleep(_NUDGE_S)

    def _events(self, job_id: str, rows: Any) -> list[Event]:
        return [
            Event(event_id, fields["event"], self._frame(job_id, event_id, fields["event"], fields["data"]))
            for event_id, fields in rows
        ]


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


def place(event_id: str) -> tuple[int, int]:
    """An event's id as numbers, which sort."""
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence)
