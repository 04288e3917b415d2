"""A job's events as they happen: its Redis stream as server-sent events, whose ids are the stream's.

A client is one coroutine; all of them share one reader of Redis. It is sent a batch at a time, and takes the
next one when that has left, so that a slow client holds a batch and no more; one that falls behind what the
stream still holds gets a snapshot of the job, and goes on from now.
"""

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from prometheus_client import Gauge
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from starlette.types import Receive, Scope, Send

from service.commands import Commands
from service.errors import TooManyStreamsError
from service.jobs.event_feeds import BATCH_EVENTS, LOOK_S, Event, EventFeeds, Feed, place
from worker.contract import keys
from worker.contract.messages import ChunkResult, JobStatus

START: Final = "0-0"
RECONNECT_MS: Final = 2_000
_PAUSE_S: Final = 0.5
"""Between two attempts to reach Redis."""
_RETRY_AFTER_S: Final = 5
_FIRSTLOOK_S: Final = 0.01
_LASTLOOK_S: Final = 0.2
"""Who waits for an end looks soon, then ever more rarely: an image takes a fraction of a second."""
_MAX_SEQUENCE: Final = 2**64 - 1

Snapshot = Callable[[], Awaitable[str]]
"""The job as JSON, as it is now."""


class EventStreams:
    """All streams of this process. stopping: set once they are to end. gauge: how many are open.

    commands: for those who wait without a stream, however many; each stream has a connection of its own.
    """

    def __init__(
        self,
        redis_url: str,
        commands: Commands,
        *,
        max_streams: int,
        keepalive_s: float,
        stopping: threading.Event,
        gauge: Gauge,
    ) -> None:
        self._redis = Redis.from_url(
            redis_url,
            decode_responses=True,
            socket_connect_timeout=2.0,
            socket_timeout=10.0 + LOOK_S,
            max_connections=2 * max_streams,
        )
        self._commands = commands
        self._feeds = EventFeeds(self._redis, _frame)
        self._max_streams = max_streams
        self._keepalive_s = keepalive_s
        self._stopping = stopping
        self._gauge = gauge
        self._open = 0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._feeds.aclose()
        await self._redis.aclose()

    def check_room(self) -> None:
        """Raises TooManyStreamsError while as many are open as may be."""
        if self._open >= self._max_streams:
            raise TooManyStreamsError(
                f"{self._open} event streams are open, and this process has no more; poll /jobs/ID instead.",
                retry_after_s=_RETRY_AFTER_S,
            )

    def response(
        self, job_id: str, after: str | None, snapshot: Snapshot, headers: dict[str, str] | None = None
    ) -> "EventStreamResponse":
        """The answer that follows a job. after: the last event that the client has.

        Return it at once: it holds its place from here until it has ended. Raises TooManyStreamsError.
        """
        self.check_room()
        self._open += 1
        self._gauge.inc()
        return EventStreamResponse(self._follow(job_id, after or START, snapshot), self._leave, headers or {})

    async def is_over(self, job_id: str, after: str) -> bool:
        """Whether a client that has `after` has all there will be, unless the job is retried."""
        state = await self._state(job_id)
        return state is not None and place(after) >= place(state.last) and await self._has_ended(job_id)

    async def wait_for_end(self, job_id: str, wait_s: float, keep_on: Callable[[], Awaitable[bool]]) -> None:
        """Return once the job has ended, `wait_s` have passed, `keep_on` says no or the process stops."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + wait_s, _FIRSTLOOK_S
        while not self._stopping.is_set() and not await self._has_ended(job_id):
            remaining = deadline - loop.time()
            if remaining <= 0 or not await keep_on():
                return
            await asyncio.sleep(min(pause, remaining))
            pause = min(1.5 * pause, _LASTLOOK_S)

    def _leave(self) -> None:
        self._open -= 1
        self._gauge.dec()

    async def _follow(self, job_id: str, after: str, snapshot: Snapshot) -> AsyncGenerator[bytes]:
        """Frames of one client. Through an outage of Redis it stays, with comments alone."""
        yield format_sse_event(comment="events of a job", retry=RECONNECT_MS)
        with self._feeds.following(job_id) as feed:
            async with aclosing(self._frames(feed, after, snapshot)) as frames:
                async for frame in frames:
                    yield frame

    async def _frames(self, feed: Feed, after: str, snapshot: Snapshot) -> AsyncGenerator[bytes]:
        job_id = feed.job_id
        loop = asyncio.get_running_loop()
        last_sent_at, behind = loop.time(), True
        while not self._stopping.is_set():
            frames: list[bytes] = []
            try:
                if behind and (state := await self._state(job_id)) and state.has_lost(after):
                    after = await self._before_the_end(job_id, state)
                    frames.append(format_sse_event(data_str=await snapshot(), event="snapshot", id=after))
                events = await self._next(feed, after, wait=not frames)
                if not events and not frames and await self._has_nothing_more(job_id, after):
                    return
            except RedisError:
                events = []
                await asyncio.sleep(_PAUSE_S)
            frames += [event.frame for event in events]
            behind = len(events) == BATCH_EVENTS
            if not frames and loop.time() - last_sent_at >= self._keepalive_s:
                frames = [format_sse_event(comment="keep-alive")]
            if frames:
                yield b"".join(frames)
                last_sent_at = loop.time()
            if events:
                after = events[-1].id
                if events[-1].name == "done" and await self._is_last(job_id, after):
                    return

    async def _next(self, feed: Feed, after: str, *, wait: bool) -> list[Event]:
        """The next events, at most a batch; with `wait`, once there are some or a moment has passed."""
        for is_last_look in (not wait, True):
            found = (
                feed.since(after) if feed.has_all_after(after) else await self._feeds.read(feed.job_id, after)
            )
            if found or is_last_look:
                return found
            await feed.wait(min(LOOK_S, self._keepalive_s))
        return []

    async def _is_last(self, job_id: str, event_id: str) -> bool:
        """Whether nothing followed: a retried job goes on after a `done`."""
        try:
            return not await self._feeds.read(job_id, event_id)
        except RedisError:
            return False

    async def _has_nothing_more(self, job_id: str, after: str) -> bool:
        return await self._has_ended(job_id) and not await self._feeds.read(job_id, after)

    async def _has_ended(self, job_id: str) -> bool:
        status = await self._commands.run("HGET", keys.job_key(job_id), "status")
        return status is None or JobStatus(status).is_final

    async def _state(self, job_id: str) -> "_StreamState | None":
        """None for a job without a stream."""
        try:
            info = await self._redis.xinfo_stream(keys.events_key(job_id))
        except ResponseError:
            return None
        length = int(info["length"])
        first = info["first-entry"]
        return _StreamState(
            first=str(first[0]) if first else str(info["last-generated-id"]),
            last=str(info["last-generated-id"]),
            # Redis before 7.0 does not count what it has trimmed.
            is_trimmed=int(info.get("entries-added", length + (length >= keys.EVENTS_MAX_LENGTH))) > length,
        )

    async def _before_the_end(self, job_id: str, state: "_StreamState") -> str:
        """Where to go on after a snapshot: from now; an end that is the last event is still to be sent."""
        newest = cast("Any", await self._redis.xrevrange(keys.events_key(job_id), count=1))
        if newest and newest[0][1]["event"] == "done":
            return _just_before(newest[0][0])
        return state.last


@dataclass(frozen=True, slots=True)
class _StreamState:
    """Ids of the first and the last event, and whether some before them are gone."""

    first: str
    last: str
    is_trimmed: bool

    def has_lost(self, after: str) -> bool:
        """Whether events may be gone that a client which has `after` has not seen."""
        return self.is_trimmed and place(after) < place(self.first)


class EventStreamResponse(StreamingResponse):
    """Ends its source and gives its place back however it ends: also when the client goes away."""

    media_type = "text/event-stream"

    def __init__(
        self, frames: AsyncGenerator[bytes], on_end: Callable[[], None], headers: dict[str, str]
    ) -> None:
        fixed = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(frames, headers={**headers, **fixed})
        self._frames = frames
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with aclosing(self._frames):
                await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _shard_data(job_id: str, text: str) -> str:
    result = ChunkResult.model_validate_json(text)
    return json.dumps(
        {
            "chunk_index": result.chunk_index,
            "class": result.class_slug,
            "count": result.count,
            "sha256": result.shard_sha256,
            "bytes": result.shard_bytes,
            "links": {"shard": f"/jobs/{job_id}/shards/{result.chunk_index}"},
        },
        separators=(",", ":"),
    )


def _frame(job_id: str, event_id: str, name: str, data: str) -> bytes:
    return format_sse_event(
        data_str=_shard_data(job_id, data) if name == "shard" else data, event=name, id=event_id
    )


def _just_before(event_id: str) -> str:
    milliseconds, sequence = place(event_id)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{max(0, milliseconds - 1)}-{_MAX_SEQUENCE if milliseconds else 0}"
