"""A client of the HTTP API: ask for images, follow the job, fetch the verified archive."""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from masan.archive import verify_archive
from masan.errors import ApiError, JobFailedError, ServerUnreachableError

_LONG_POLL_S = 10
_FASTEST_POLL_S = 0.2
"""A server that answers a long-poll at once (it does not know `Prefer: wait`) is asked this often."""
_LOST_CONNECTION_S = 60.0
"""How long reads are repeated while the service is away: longer than a restart takes."""
_RANGE_ATTEMPTS = 5
_REDRAW_S = 60
"""How long the server may draw an image that it is asked to compare with; the most that it waits."""
_FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})


@dataclass(frozen=True)
class Job:
    """What the server says of a job. `body` is its whole answer; `seed` is a uint64."""

    id: str
    status: str
    n: int
    done: int
    seed: int
    model: str
    images_per_second: float | None = None
    eta_seconds: float | None = None
    error: dict[str, Any] | None = None
    body: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        return self.status in _FINAL

    @classmethod
    def from_body(cls, body: dict[str, Any]) -> Self:
        """Raises KeyError or ValueError if the body is no job."""
        progress = body.get("progress") or {}
        model = body["model"]
        return cls(
            id=body["id"],
            status=body["status"],
            n=int(body["n"]),
            done=int(progress.get("done") or 0),
            seed=int(body["seed"]),
            model=f"{model['name']}@{model['version']}",
            images_per_second=progress.get("images_per_second"),
            eta_seconds=progress.get("eta_seconds"),
            error=body.get("error"),
            body=body,
        )


@dataclass(frozen=True)
class JobEvent:
    """What happened to a job: `status`, `progress`, `shard` or `done`; `snapshot` where events were lost."""

    id: str
    name: str
    data: dict[str, Any]


class Client:
    """Speaks to one server; a context manager that closes its connections.

    Reads are repeated while the connection is away for a moment, and so is `generate`: its key lets the
    server see that it was asked before.
    Raises ValueError for a base URL that is none, ApiError for an answer that is an error,
    ServerUnreachableError when nobody answers.
    """

    def __init__(self, base_url: str, api_key: str | None = None, *, timeout_s: float = 30.0) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url: {base_url!r} does not begin with http:// or https://")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url, headers=headers, timeout=timeout_s, trust_env=not _is_loopback(base_url)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def generate(
        self,
        class_: str | None = None,
        n: int | None = None,
        *,
        mix: Mapping[str, int] | None = None,
        seed: int | None = None,
        truncation: float | None = None,
        model: str | None = None,
        image_format: str | None = None,
        quality: int | None = None,
        gate: str | None = None,
        priority: str | None = None,
        deadline_s: int | None = None,
        metadata: Mapping[str, str] | None = None,
        webhook: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask for `n` images of a class, or for a `mix` of them; what is None is the server's to choose.

        The same `idempotency_key` within a day gives the same job; by default each call has its own.
        """
        asked: dict[str, str | int | float | None] = {
            "class": class_,
            "n": n,
            "seed": seed,
            "truncation": truncation,
            "model": model,
            "image_format": image_format,
            "quality": quality,
            "gate": gate,
            "priority": priority,
            "deadline": deadline_s,
        }
        params = {name: value for name, value in asked.items() if value is not None}
        given = {"mix": mix, "metadata": metadata, "webhook": webhook}
        body = {name: dict(value) for name, value in given.items() if value is not None}
        request = self._http.build_request(
            "POST",
            "/generate",
            params=params,
            json=body or None,
            headers={"Idempotency-Key": idempotency_key or str(uuid.uuid4())},
        )
        return Job.from_body(self._send_until_answered(request).json())

    def retry(self, job: Job | str) -> Job:
        """Let a failed, canceled or expired job make what it still lacks."""
        with self._answering():
            response = self._http.post(f"/jobs/{_id_of(job)}/retry")
        return Job.from_body(_checked(response).json())

    def events(self, job: Job | str, *, after: str | None = None) -> Iterator[JobEvent]:
        """What happens to a job, from its beginning or after an event's id, until it has ended.

        Goes on where a broken connection stopped, so that each event is given once.
        """
        url, lost_at = f"/jobs/{_id_of(job)}/events", time.monotonic()
        with self._answering():
            while True:
                headers = {"Last-Event-ID": after} if after else {}
                name = ""
                try:
                    with self._http.stream("GET", url, headers=headers) as response:
                        if response.is_error:
                            response.read()
                        if _checked(response).status_code == httpx.codes.NO_CONTENT:
                            return
                        for event in _events_in(response.iter_lines()):
                            yield event
                            after, name = event.id, event.name
                            lost_at = time.monotonic()
                except httpx.TransportError:
                    if time.monotonic() - lost_at > _LOST_CONNECTION_S:
                        raise
                else:
                    if name == "done":  # another one, of a retry, would have followed
                        return
                time.sleep(_FASTEST_POLL_S)

    def job(self, job_id: str) -> Job:
        """The job as it is now."""
        return Job.from_body(self._get(f"/jobs/{job_id}").json())

    def wait(
        self,
        job: Job | str,
        on_progress: Callable[[Job], None] = lambda _: None,
        *,
        timeout_s: float | None = None,
    ) -> Job:
        """Follow a job until it has succeeded; `on_progress` gets every state seen.

        Raises JobFailedError if it ends otherwise, TimeoutError after `timeout_s`.
        """
        job_id = _id_of(job)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        prefer: dict[str, str] = {}
        while True:
            asked_at = time.monotonic()
            now = Job.from_body(self._get(f"/jobs/{job_id}", headers=prefer).json())
            on_progress(now)
            if now.status == "succeeded":
                return now
            if now.is_final:
                raise JobFailedError(now.id, now.status, now.error)
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(
                    f"job {job_id} is {now.status} ({now.done} of {now.n}) after {timeout_s} s"
                )
            prefer = {"Prefer": f"wait={_LONG_POLL_S}"}
            time.sleep(max(0.0, _FASTEST_POLL_S - (time.monotonic() - asked_at)))

    def download(self, job: Job | str, path: Path) -> Path:
        """Fetch a job's archive to `path` and check every file in it against its manifest.

        Streams to disk and goes on where a broken connection stopped, if the server offers ranges.
        Raises ArchiveCorruptedError for a file that is not what the manifest says.
        """
        job_id = _id_of(job)
        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        try:
            self._download_to(f"/jobs/{job_id}/result", part)
            verify_archive(part)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def models(self) -> dict[str, Any]:
        """What the server's model store holds: `default`, and each model's versions and aliases."""
        body: dict[str, Any] = self._get("/models").json()
        return body

    def model_card(self, name: str, version: str) -> dict[str, Any]:
        """A checkpoint's digest, aliases and whole manifest."""
        body: dict[str, Any] = self._get(f"/models/{name}/versions/{version}").json()
        return body

    def classes(self, model: str | None = None) -> list[str]:
        """The classes of a checkpoint, in label order."""
        params = {"model": model} if model else {}
        return [entry["slug"] for entry in self._get("/classes", params=params).json()["classes"]]

    def report(self, class_: str | None = None, model: str | None = None) -> dict[str, Any]:
        """Per-class quality figures of a checkpoint, with the extractor they were made with."""
        asked = {"class": class_, "model": model}
        params = {name: value for name, value in asked.items() if value is not None}
        body: dict[str, Any] = self._get("/reports/fid", params=params).json()
        return body

    def verify(self, content: bytes, media_type: str) -> dict[str, Any]:
        """What the server says of an image file: `verdict`, `detail` and, where it compared, `difference`."""
        headers = {"Content-Type": media_type, "Prefer": f"wait={_REDRAW_S}"}
        with self._answering():
            response = self._http.post("/verify", content=content, headers=headers, timeout=_REDRAW_S + 30)
        body: dict[str, Any] = _checked(response).json()
        return body

    def certificate_key(self) -> str:
        """The public key that the server signs certificates with, base64."""
        return str(self._get("/certificates/key").json()["public_key"])

    def _download_to(self, url: str, part: Path) -> None:
        etag: str | None = None
        for attempt in range(1, _RANGE_ATTEMPTS + 1):
            have = part.stat().st_size if part.exists() and etag else 0
            headers = {"Range": f"bytes={have}-", "If-Range": etag} if have and etag else {}
            try:
                with self._http.stream("GET", url, headers=headers) as response:
                    if response.is_error:
                        response.read()
                    _checked(response)
                    resumed = response.status_code == httpx.codes.PARTIAL_CONTENT
                    offers_ranges = response.headers.get("Accept-Ranges") == "bytes"
                    etag = response.headers.get("ETag") if offers_ranges or resumed else None
                    with part.open("ab" if resumed else "wb") as file:
                        for block in response.iter_bytes():
                            file.write(block)
                return
            except httpx.TransportError as error:
                if attempt == _RANGE_ATTEMPTS:
                    raise ServerUnreachableError(self.base_url, _reason(error)) from error
                time.sleep(0.5 * attempt)

    def _get(
        self, url: str, params: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """A read, repeated while the connection is away."""
        deadline = time.monotonic() + _LOST_CONNECTION_S
        with self._answering():
            while True:
                try:
                    return _checked(self._http.get(url, params=params, headers=headers))
                except httpx.TransportError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.5)

    def _send_until_answered(self, request: httpx.Request) -> httpx.Response:
        """Of a request with a key, sent again if the connection is lost or an earlier one is at work.

        Where nobody listens at first, nothing is lost, and nothing is repeated.
        """
        deadline, was_sent = time.monotonic() + _LOST_CONNECTION_S, False
        with self._answering():
            while True:
                try:
                    return _checked(self._http.send(request))
                except httpx.TransportError as error:
                    was_sent |= not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                    if not was_sent or time.monotonic() > deadline:
                        raise
                except ApiError as error:
                    if error.problem.get("code") != "idempotency_conflict" or time.monotonic() > deadline:
                        raise
                time.sleep(0.5)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachableError(self.base_url, _reason(error)) from error


def _checked(response: httpx.Response) -> httpx.Response:
    """Raises ApiError for an error answer."""
    if not response.is_error:
        return response
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"title": f"HTTP {response.status_code} {response.reason_phrase} from {response.url.path}"}
    raise ApiError(response.status_code, problem)


def _id_of(job: Job | str) -> str:
    return job if isinstance(job, str) else job.id


def _events_in(lines: Iterator[str]) -> Iterator[JobEvent]:
    """Whole events of a stream; comments are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        else:
            if "data" in fields:
                yield JobEvent(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
            fields = {}


def _is_loopback(url: str) -> bool:
    """A proxy of the environment cannot reach this machine's own addresses."""
    return httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
