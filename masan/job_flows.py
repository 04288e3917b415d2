"""Following a job: server-sent events, else long polls, else plain ones; its events, shards and images."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import httpx

from masan.asking import (
    Patience,
    Session,
    ask_json,
    checked,
    json_of,
    pause_after_loss,
    pause_after_refusal,
)
from masan.errors import ApiError, JobFailedError, ServerUnreachableError, UnexpectedAnswerError
from masan.exchange import Ask, Emit, Fetch, Flow, Open, Pause, ReadBlock, ReadRest, intercept
from masan.job import Job, JobEvent, ShardList

_EVENT_STREAM: Final = "text/event-stream"
_SILENCE_S: Final = 40.0
"""A stream without even a comment for so long is dead, or held back by a proxy; they come every 15 s."""
_LONG_POLL_S: Final = 10
_SHARD_POLL_S: Final = 2
_FASTEST_POLL_S: Final = 0.2
_SLOWEST_POLL_S: Final = 2.0
"""How often a server is asked that answers long polls at once: it does not know `Prefer: wait`."""
_STAGES: Final = ("queued", "running", "canceling")
_NO_STREAM_STATUSES: Final = frozenset({404, 405, 406, 501, 503})

OnProgress = Callable[[Job], None]


class StreamUnavailableError(Exception):
    """Events cannot be had here; the job can still be polled."""


def look(session: Session, job_id: str) -> Flow[Job]:
    """The job as it is now."""
    body = yield from ask_json(session, Ask("GET", f"/jobs/{job_id}"))
    return as_job(session, body)


def as_job(session: Session, body: Any) -> Job:
    """Raises UnexpectedAnswerError for what is no job."""
    try:
        return Job.from_body(body)
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswerError(session.base_url, "/jobs", "something that is no job") from error


def events(session: Session, job_id: str, after: str | None = None, *, ticks: bool = False) -> Flow[None]:
    """Emits each JobEvent once, from the beginning or after an event's id, until the job has ended.

    ticks: also None for signs of life in between. Goes on where a broken connection stopped.
    Raises ApiError, ServerUnreachableError; StreamUnavailableError where there are no event streams.
    """
    patience = Patience(session)
    while True:
        headers = {"Accept": _EVENT_STREAM} | ({"Last-Event-ID": after} if after else {})
        name = ""
        try:
            response = yield Open(Ask("GET", f"/jobs/{job_id}/events", headers=headers, timeout_s=_SILENCE_S))
            yield from _check_stream(session, response)
            if response.status_code == httpx.codes.NO_CONTENT:
                return
            reader = _EventReader()
            while block := (yield ReadBlock()):
                patience.renew()
                found = reader.feed(block)
                for event in found:
                    after, name = event.id or after, event.name
                    yield Emit(event)
                if ticks and not found:
                    yield Emit(None)
            if name == "done":  # another one, of a retry, would have followed
                return
            yield Pause(_FASTEST_POLL_S)
        except httpx.TransportError as error:
            if ticks:
                yield Emit(None)
            yield pause_after_loss(session, patience, error)
        except ApiError as error:
            yield pause_after_refusal(patience, error)


def _check_stream(session: Session, response: httpx.Response) -> Flow[None]:
    if response.is_error:
        yield ReadRest()
        checked(response)
    session.was_answered = True
    is_stream = response.headers.get("Content-Type", "").startswith(_EVENT_STREAM)
    if response.status_code != httpx.codes.NO_CONTENT and not is_stream:
        raise StreamUnavailableError


def wait(session: Session, job_id: str, on_progress: OnProgress, timeout_s: float | None = None) -> Flow[Job]:
    """Follow a job until it has succeeded; `on_progress` gets every state that is seen.

    Raises JobFailedError if it ends otherwise, TimeoutError after `timeout_s`.
    """
    follower = _Follower(on_progress, timeout_s)
    now = follower.see((yield from look(session, job_id)))
    if not now.is_final:
        try:
            yield from intercept(events(session, job_id, ticks=True), follower.handle)
        except (StreamUnavailableError, ServerUnreachableError):
            pass  # what follows says what is wrong, if it cannot be polled either
        except ApiError as error:
            if error.status not in _NO_STREAM_STATUSES:
                raise
        now = yield from _poll(session, follower)
    if now.status != "succeeded":
        raise JobFailedError(now.id, now.status, now.error)
    return now


def _poll(session: Session, follower: "_Follower") -> Flow[Job]:
    """Ask until the job has ended, at first at once."""
    request, pause_s = Ask("GET", f"/jobs/{follower.now.id}"), _FASTEST_POLL_S
    while True:
        asked_at, before = time.monotonic(), follower.now
        now = follower.see(as_job(session, (yield from ask_json(session, request))))
        if now.is_final:
            return now
        request = request.with_headers(Prefer=f"wait={_LONG_POLL_S}")
        if time.monotonic() - asked_at < _FASTEST_POLL_S:
            is_idle = (now.status, now.done) == (before.status, before.done)
            pause_s = min(_SLOWEST_POLL_S, pause_s * 1.5) if is_idle else _FASTEST_POLL_S
            yield Pause(pause_s)


class _Follower:
    """Keeps the job's state up to date from whatever is heard of it."""

    def __init__(self, on_progress: OnProgress, timeout_s: float | None) -> None:
        self._on_progress = on_progress
        self._timeout_s = timeout_s
        self._began = time.monotonic()
        self.now: Job

    def see(self, now: Job) -> Job:
        """Raises TimeoutError."""
        self.now = now
        self._on_progress(now)
        late = self._timeout_s is not None and time.monotonic() - self._began > self._timeout_s
        if late and not now.is_final:
            raise TimeoutError(
                f"job {now.id} is {now.status} ({now.done} of {now.n}) after {self._timeout_s} s"
            )
        return now

    def handle(self, event: JobEvent | None) -> None:
        """Take in an event, or a sign of life. The end is looked up, for its error and its last figures.

        The stream begins with what was before the first look, which the job does not go back to.
        """
        now = self.now
        if event is not None and event.name == "snapshot":
            now = Job.from_body(event.data)
        elif event is not None and event.name == "progress":
            now = self._progressed(max(now.done, int(event.data.get("done", now.done))))
        elif event is not None and event.name == "status":
            now = replace(now, status=max(now.status, str(event.data.get("status")), key=_stage))
        if event is None or event.name != "done":
            # A state that has ended is told once, by the look that follows.
            self.see(replace(now, status=self.now.status) if now.is_final else now)

    def _progressed(self, done: int) -> Job:
        seconds = time.monotonic() - self._began
        speed = self.now.images_per_second if done <= self.now.done or seconds < 1 else done / seconds
        status = max(self.now.status, "running", key=_stage)
        return replace(self.now, done=done, status=status, images_per_second=speed)


def _stage(status: str) -> int:
    """How far a job is that has not ended."""
    return _STAGES.index(status) if status in _STAGES else -1


class _EventReader:
    """Bytes of a stream into whole events; comments are passed over. Source: WHATWG HTML, 9.2."""

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, list[str]] = {}

    def feed(self, block: bytes) -> list[JobEvent]:
        """The events that are whole now."""
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        return list(self._events(line.rstrip(b"\r").decode("utf-8", "replace") for line in lines))

    def _events(self, lines: Iterator[str]) -> Iterator[JobEvent]:
        for line in lines:
            name, _, value = line.partition(":")
            if name:
                self._fields.setdefault(name, []).append(value.removeprefix(" "))
            elif not line:
                fields, self._fields = self._fields, {}
                if "data" in fields:
                    data = json.loads("\n".join(fields["data"]))
                    yield JobEvent(fields.get("id", [""])[-1], fields.get("event", [""])[-1], data)


def list_shards(session: Session, job_id: str) -> Flow[ShardList]:
    """The shards that are made."""
    body = yield from ask_json(session, Ask("GET", f"/jobs/{job_id}/shards"))
    try:
        return ShardList.from_body(body)
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedAnswerError(session.base_url, "/shards", "something else") from error


def shards(session: Session, job_id: str) -> Flow[None]:
    """Emits each Shard once it can be read, until the job has ended. Raises JobFailedError at another end."""
    seen: set[int] = set()
    while True:
        listed = yield from list_shards(session, job_id)
        for shard in listed.shards:
            if shard.index not in seen:
                seen.add(shard.index)
                yield Emit(shard)
        if listed.is_final:
            break
        yield from wait_for_change(session, job_id)
    if listed.status != "succeeded":
        job = yield from look(session, job_id)
        raise JobFailedError(job_id, job.status, job.error)


def wait_for_change(session: Session, job_id: str) -> Flow[None]:
    """Return when something about the job has changed, after two seconds at the latest."""
    asked_at = time.monotonic()
    request = Ask("GET", f"/jobs/{job_id}").with_headers(Prefer=f"wait={_SHARD_POLL_S}")
    yield from ask_json(session, request)
    yield Pause(max(0.0, _FASTEST_POLL_S - (time.monotonic() - asked_at)))


def image_rows(session: Session, job_id: str) -> Flow[None]:
    """Emits what is known of each image, in order, as they are made, until there are no more."""
    cursor: str | None = None
    while True:
        params = {"limit": 1000} | ({"cursor": cursor} if cursor else {})
        body = yield from ask_json(session, Ask("GET", f"/jobs/{job_id}/images", params=params))
        for row in body["images"]:
            yield Emit(row)
        if body["next_cursor"] is None:
            return
        if body["next_cursor"] == cursor or not body["images"]:
            yield Pause(_FASTEST_POLL_S)
            yield from wait_for_change(session, job_id)
        cursor = body["next_cursor"]


def jobs(session: Session, params: dict[str, str], limit: int | None) -> Flow[None]:
    """Emits jobs, newest first, page after page; `limit` of them at most."""
    left, cursor = limit, None
    while left is None or left > 0:
        page: dict[str, str | int] = dict(params)
        page["limit"] = 200 if left is None else min(left, 200)
        if cursor:
            page["cursor"] = cursor
        body = yield from ask_json(session, Ask("GET", "/jobs", params=page))
        for row in body["jobs"]:
            yield Emit(as_job(session, row))
        left = None if left is None else left - len(body["jobs"])
        cursor = body["next_cursor"]
        if cursor is None:
            return


def retry(session: Session, job_id: str) -> Flow[Job]:
    """Queue a job once more; a lost answer is looked up, since another request would be refused.

    Raises ApiError.
    """
    before = (yield from look(session, job_id)).body.get("attempt")
    patience = Patience(session)
    while True:
        try:
            response = yield Fetch(Ask("POST", f"/jobs/{job_id}/retry"))
            return as_job(session, json_of(session, checked(response)))
        except httpx.TransportError as error:
            yield pause_after_loss(session, patience, error)
            now = yield from look(session, job_id)
            if now.body.get("attempt") != before:
                return now
        except ApiError as error:
            if error.code == "job_not_retryable" and error.retry_after_s is not None:
                yield patience.pause(error, error.retry_after_s)
            else:
                yield pause_after_refusal(patience, error)
