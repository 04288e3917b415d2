"""`AsyncClient`: `masan.client.Client` for asyncio, method by method; what each does is written there."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self, Unpack, cast

from masan import job_flows
from masan.api_flows import Api, GenerateOptions
from masan.client import OnRetry, key_headers, session_of
from masan.download_flows import OnBytes
from masan.exchange import AsyncExchange
from masan.job import Job, JobEvent, Shard, ShardList, id_of


class AsyncClient:
    """As `Client`, whose methods say what they do: coroutines, and asynchronous iterators where it iterates.

    `on_progress`, `on_bytes` and `on_retry` are plain functions here, too.
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
        self._exchange = AsyncExchange(session.base_url, key_headers(api_key), timeout_s)
        self._run = self._exchange.run

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._exchange.close()

    async def submit(
        self, class_: str | None = None, n: int | None = None, **options: Unpack[GenerateOptions]
    ) -> Job:
        return await self._run(self._api.submit(class_, n, options))

    generate = submit

    async def job(self, job: Job | str) -> Job:
        return await self._run(self._api.job(job))

    def jobs(
        self, status: str | None = None, class_: str | None = None, limit: int | None = None
    ) -> AsyncIterator[Job]:
        return cast(AsyncIterator[Job], self._exchange.iterate(self._api.jobs(status, class_, limit)))

    async def wait(
        self,
        job: Job | str,
        on_progress: Callable[[Job], None] = lambda _: None,
        *,
        timeout_s: float | None = None,
    ) -> Job:
        return await self._run(job_flows.wait(self._api.session, id_of(job), on_progress, timeout_s))

    def events(self, job: Job | str, *, after: str | None = None) -> AsyncIterator[JobEvent]:
        flow = job_flows.events(self._api.session, id_of(job), after)
        return cast(AsyncIterator[JobEvent], self._exchange.iterate(flow))

    async def cancel(self, job: Job | str) -> Job:
        return await self._run(self._api.cancel(job))

    async def retry(self, job: Job | str) -> Job:
        return await self._run(job_flows.retry(self._api.session, id_of(job)))

    async def delete(self, job: Job | str) -> None:
        await self._run(self._api.delete(job))

    async def download(
        self, job: Job | str, path: Path | str, on_bytes: OnBytes = lambda _done, _total: None
    ) -> Path:
        return await self._run(self._api.download(job, Path(path), on_bytes))

    async def shard_list(self, job: Job | str) -> ShardList:
        return await self._run(self._api.shard_list(job))

    def shards(self, job: Job | str) -> AsyncIterator[Shard]:
        flow = job_flows.shards(self._api.session, id_of(job))
        return cast(AsyncIterator[Shard], self._exchange.iterate(flow))

    async def download_shard(self, shard: Shard, path: Path | str) -> Path:
        return await self._run(self._api.download_shard(shard, Path(path)))

    def images(self, job: Job | str) -> AsyncIterator[dict[str, Any]]:
        flow = job_flows.image_rows(self._api.session, id_of(job))
        return cast(AsyncIterator[dict[str, Any]], self._exchange.iterate(flow))

    async def image(self, job: Job | str, number: int) -> bytes:
        return await self._run(self._api.image(job, number))

    async def redraw(
        self, image_id: str, *, image_format: str | None = None, quality: int | None = None
    ) -> bytes:
        return await self._run(self._api.redraw(image_id, image_format, quality))

    async def certificate(self, job: Job | str) -> bytes:
        return await self._run(self._api.certificate(job))

    async def certificate_key(self) -> str:
        return await self._run(self._api.certificate_key())

    async def verify(self, content: bytes, media_type: str) -> dict[str, Any]:
        return await self._run(self._api.verify(content, media_type))

    async def models(self) -> dict[str, Any]:
        return await self._run(self._api.models())

    async def model_card(self, name: str, version: str) -> dict[str, Any]:
        return await self._run(self._api.model_card(name, version))

    async def classes(self, model: str | None = None) -> list[str]:
        return await self._run(self._api.classes(model))

    async def promote(
        self, name: str, version: str, alias: str = "production", *, force_reason: str | None = None
    ) -> dict[str, Any]:
        return await self._run(self._api.promote(name, version, alias, force_reason))

    async def rollback(self, name: str, alias: str = "production") -> dict[str, Any]:
        return await self._run(self._api.rollback(name, alias))

    async def report(self, class_: str | None = None, model: str | None = None) -> dict[str, Any]:
        return await self._run(self._api.report(class_, model))

    async def quality_report(self, name: str, version: str) -> dict[str, Any]:
        return await self._run(self._api.quality_report(name, version))

    async def request_report(self, model: str | None = None, n: int | None = None) -> dict[str, Any]:
        return await self._run(self._api.request_report(model, n))

    async def report_record(self, report_id: str) -> dict[str, Any]:
        return await self._run(self._api.report_record(report_id))
