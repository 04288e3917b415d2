"""A client of the HTTP API: ask for images, follow the job, fetch the verified archive.

`Client` and `AsyncClient` (`masan.async_client`) are two thin faces of the same flows.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self, Unpack, cast

from masan import job_flows
from masan.api_flows import Api, GenerateOptions
from masan.asking import Session
from masan.download_flows import OnBytes
from masan.exchange import Exchange
from masan.job import Job, JobEvent, Shard, ShardList, id_of

__all__ = ["Client", "Job", "JobEvent", "Shard", "ShardList"]

OnRetry = Callable[[str, float], None]
"""Takes why a request is repeated, and in how many seconds."""


def session_of(base_url: str, retry_for_s: float, on_retry: OnRetry | None) -> Session:
    """Raises ValueError for a base URL that is none."""
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url: {base_url!r} does not begin with http:// or https://")
    session = Session(base_url.rstrip("/"), retry_for_s)
    if on_retry is not None:
        session.on_retry = on_retry
    return session


def key_headers(api_key: str | None) -> dict[str, str]:
    """What shows the server who asks."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


class Client:
    """Speaks to one server; a context manager that closes its connections.

    Requests are repeated for up to `retry_for_s` seconds where that is safe and may help: lost connections,
    502, 503, 504 and 429 with what `Retry-After` asks for. `submit` is safe to repeat, since its key lets the
    server see that it was asked before. A server that has never answered is given up after two seconds.
    timeout_s: of silence on a connection. on_retry: told why a request is repeated, and in how many seconds.
    Raises ValueError for a base URL that is none, ApiError for an answer that is an error,
    UnexpectedAnswerError for one of another service, ServerUnreachableError when nobody answers.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 30.0,
        retry_for_s: float = 60.0,
        on_retry: OnRetry | None = None,
    ) -> None:
        session = session_of(base_url, retry_for_s, on_retry)
        self.base_url = session.base_url
        self._api = Api(session)
        self._exchange = Exchange(session.base_url, key_headers(api_key), timeout_s)
        self._run = self._exchange.run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._exchange.close()

    def submit(
        self, class_: str | None = None, n: int | None = None, **options: Unpack[GenerateOptions]
    ) -> Job:
        """Ask for `n` images of a class, or for a `mix` of them; see GenerateOptions for the rest."""
        return self._run(self._api.submit(class_, n, options))

    generate = submit

    def job(self, job: Job | str) -> Job:
        """The job as it is now."""
        return self._run(self._api.job(job))

    def jobs(
        self, status: str | None = None, class_: str | None = None, limit: int | None = None
    ) -> Iterator[Job]:
        """Your own jobs, newest first; all pages, or `limit` jobs."""
        return cast(Iterator[Job], self._exchange.iterate(self._api.jobs(status, class_, limit)))

    def wait(
        self,
        job: Job | str,
        on_progress: Callable[[Job], None] = lambda _: None,
        *,
        timeout_s: float | None = None,
    ) -> Job:
        """Follow a job until it has succeeded; `on_progress` gets every state seen.

        By server-sent events; where there are none, by long polls, else by plain ones.
        Raises JobFailedError if it ends otherwise, TimeoutError after `timeout_s`.
        """
        return self._run(job_flows.wait(self._api.session, id_of(job), on_progress, timeout_s))

    def events(self, job: Job | str, *, after: str | None = None) -> Iterator[JobEvent]:
        """What happens to a job, from its beginning or after an event's id, until it has ended.

        Goes on where a broken connection stopped, so that each event is given once.
        """
        flow = job_flows.events(self._api.session, id_of(job), after)
        return cast(Iterator[JobEvent], self._exchange.iterate(flow))

    def cancel(self, job: Job | str) -> Job:
        """Stop a job; `canceling` while a worker finishes the batch at hand."""
        return self._run(self._api.cancel(job))

    def retry(self, job: Job | str) -> Job:
        """Let a failed, canceled or expired job make what it still lacks."""
        return self._run(job_flows.retry(self._api.session, id_of(job)))

    def delete(self, job: Job | str) -> None:
        """Stop a job and let its images go."""
        self._run(self._api.delete(job))

    def download(
        self, job: Job | str, path: Path | str, on_bytes: OnBytes = lambda _done, _total: None
    ) -> Path:
        """Fetch a job's archive to `path`, whatever its format, and check it.

        Streams to disk; goes on where an earlier attempt broke off, also one of another process. What is
        checked: the digest that the server tells, and every file against the archive's manifest.
        Raises ArchiveCorruptedError for a file that is not what it should be; nothing is left of it.
        """
        return self._run(self._api.download(job, Path(path), on_bytes))

    def shard_list(self, job: Job | str) -> ShardList:
        """The shards that are made by now."""
        return self._run(self._api.shard_list(job))

    def shards(self, job: Job | str) -> Iterator[Shard]:
        """Each shard once it can be read, until the job has ended. Raises JobFailedError at another end."""
        flow = job_flows.shards(self._api.session, id_of(job))
        return cast(Iterator[Shard], self._exchange.iterate(flow))

    def download_shard(self, shard: Shard, path: Path | str) -> Path:
        """Fetch a shard, a tar of images, to `path` and check its digest."""
        return self._run(self._api.download_shard(shard, Path(path)))

    def images(self, job: Job | str) -> Iterator[dict[str, Any]]:
        """What is known of each image, in order, as they are made, until there are no more."""
        flow = job_flows.image_rows(self._api.session, id_of(job))
        return cast(Iterator[dict[str, Any]], self._exchange.iterate(flow))

    def image(self, job: Job | str, number: int) -> bytes:
        """One image's file; `number` counts over all classes of the job, in the order asked for."""
        return self._run(self._api.image(job, number))

    def redraw(self, image_id: str, *, image_format: str | None = None, quality: int | None = None) -> bytes:
        """An image's file, drawn again from its id alone."""
        return self._run(self._api.redraw(image_id, image_format, quality))

    def certificate(self, job: Job | str) -> bytes:
        """The signed certificate of a succeeded job, as it stands in its archive."""
        return self._run(self._api.certificate(job))

    def certificate_key(self) -> str:
        """The public key that the server signs certificates with, base64."""
        return self._run(self._api.certificate_key())

    def verify(self, content: bytes, media_type: str) -> dict[str, Any]:
        """What the server says of an image file: `verdict`, `detail` and, where it compared, `difference`."""
        return self._run(self._api.verify(content, media_type))

    def models(self) -> dict[str, Any]:
        """What the server's model store holds: `default`, and each model's versions and aliases."""
        return self._run(self._api.models())

    def model_card(self, name: str, version: str) -> dict[str, Any]:
        """A checkpoint's digest, aliases and whole manifest."""
        return self._run(self._api.model_card(name, version))

    def classes(self, model: str | None = None) -> list[str]:
        """The classes of a checkpoint, in label order."""
        return self._run(self._api.classes(model))

    def promote(
        self, name: str, version: str, alias: str = "production", *, force_reason: str | None = None
    ) -> dict[str, Any]:
        """Let an alias name a version; `force_reason` overrides the quality gate and is kept."""
        return self._run(self._api.promote(name, version, alias, force_reason))

    def rollback(self, name: str, alias: str = "production") -> dict[str, Any]:
        """Let an alias name what it named before its last promotion."""
        return self._run(self._api.rollback(name, alias))

    def report(self, class_: str | None = None, model: str | None = None) -> dict[str, Any]:
        """Per-class quality figures of a checkpoint, with the extractor they were made with."""
        return self._run(self._api.report(class_, model))

    def quality_report(self, name: str, version: str) -> dict[str, Any]:
        """The whole quality report of a checkpoint."""
        return self._run(self._api.quality_report(name, version))

    def request_report(self, model: str | None = None, n: int | None = None) -> dict[str, Any]:
        """Ask for a new report on `n` generated images of each class; gives its record."""
        return self._run(self._api.request_report(model, n))

    def report_record(self, report_id: str) -> dict[str, Any]:
        """How far a report is."""
        return self._run(self._api.report_record(report_id))
