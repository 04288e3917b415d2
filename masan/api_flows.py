"""Every request of the API as a flow: what is sent, and what of the answer is given."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypedDict
from urllib.parse import quote

from masan import download_flows, job_flows
from masan.archive_digests import check_archive
from masan.asking import Session, ask, ask_json
from masan.download_flows import FileRequest, OnBytes
from masan.exchange import Ask, Flow
from masan.job import Job, Shard, ShardList, id_of

_REDRAW_S: Final = 60
"""How long the server may draw an image that it is asked for or to compare with; the most that it waits."""


class GenerateOptions(TypedDict, total=False):
    """What `POST /generate` takes beside class and number; what is absent or None is the server's to choose.

    mix: images of each class, in place of class and number. seed: 0 to 2^64 - 1. truncation: over 0 to 1.
    walk_to_seed: the images are steps of a walk from the first of `seed` to the first of this one; gate off.
    model: name, name@version or name@alias. format: zip, tar, npz, parquet. image_format: png, webp, jpeg.
    quality: 1 to 100 of a lossy one. gate: off, default, strict. priority: interactive, batch.
    deadline_s: the unfinished job then expires. metadata: texts of your own. webhook: url, secret, events.
    idempotency_key: the same one within a day gives the same job; by default each call has its own.
    """

    mix: Mapping[str, int] | None
    seed: int | None
    walk_to_seed: int | None
    truncation: float | None
    model: str | None
    format: str | None
    image_format: str | None
    quality: int | None
    gate: str | None
    priority: str | None
    deadline_s: int | None
    metadata: Mapping[str, str] | None
    webhook: Mapping[str, Any] | None
    idempotency_key: str | None


_IN_BODY: Final = ("mix", "metadata", "webhook")


class Api:
    """The requests of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def submit(self, class_: str | None, n: int | None, options: GenerateOptions) -> Flow[Job]:
        """Sent with a key, so that the server sees when it was asked before."""
        unknown = options.keys() - GenerateOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"submit() has no parameter {min(unknown)!r}")
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        key = str(given.pop("idempotency_key", None) or uuid.uuid4())
        body = {name: dict(given.pop(name)) for name in _IN_BODY if name in given}
        if "deadline_s" in given:
            given["deadline"] = given.pop("deadline_s")
        first = {name: value for name, value in (("class", class_), ("n", n)) if value is not None}
        request = Ask("POST", "/generate", params=first | given, json=body or None)
        answer = yield from ask_json(self.session, request.with_headers(Idempotency_Key=key))
        return job_flows.as_job(self.session, answer)

    def job(self, job: Job | str) -> Flow[Job]:
        return job_flows.look(self.session, id_of(job))

    def cancel(self, job: Job | str) -> Flow[Job]:
        answer = yield from ask_json(self.session, Ask("POST", f"/jobs/{id_of(job)}/cancel"))
        return job_flows.as_job(self.session, answer)

    def delete(self, job: Job | str) -> Flow[None]:
        yield from ask(self.session, Ask("DELETE", f"/jobs/{id_of(job)}"))

    def jobs(self, status: str | None, class_: str | None, limit: int | None) -> Flow[None]:
        given = {"status": status, "class": class_}
        params = {name: value for name, value in given.items() if value is not None}
        return job_flows.jobs(self.session, params, limit)

    def shard_list(self, job: Job | str) -> Flow[ShardList]:
        return job_flows.list_shards(self.session, id_of(job))

    def download(self, job: Job | str, path: Path, on_bytes: OnBytes) -> Flow[Path]:
        url = f"/jobs/{id_of(job)}/result"
        request = FileRequest(url, Path(path), check=check_archive, on_bytes=on_bytes)
        return download_flows.download(self.session, request)

    def download_shard(self, shard: Shard, path: Path) -> Flow[Path]:
        url = f"/jobs/{id_of(shard.job_id)}/shards/{shard.index}"
        return download_flows.download(self.session, FileRequest(url, Path(path), shard.sha256))

    def image(self, job: Job | str, number: int) -> Flow[bytes]:
        return download_flows.content(self.session, Ask("GET", f"/jobs/{id_of(job)}/images/{number:d}"))

    def redraw(self, image_id: str, image_format: str | None, quality: int | None) -> Flow[bytes]:
        given: dict[str, Any] = {"image_format": image_format, "quality": quality}
        params = {name: value for name, value in given.items() if value is not None}
        request = Ask("GET", f"/images/{quote(image_id, safe='')}", params=params, timeout_s=_REDRAW_S + 30)
        return download_flows.content(self.session, request.with_headers(Prefer=f"wait={_REDRAW_S}"))

    def certificate(self, job: Job | str) -> Flow[bytes]:
        return download_flows.content(self.session, Ask("GET", f"/jobs/{id_of(job)}/certificate"))

    def certificate_key(self) -> Flow[str]:
        body = yield from ask_json(self.session, Ask("GET", "/certificates/key"))
        return str(body["public_key"])

    def verify(self, content: bytes, media_type: str) -> Flow[dict[str, Any]]:
        request = Ask("POST", "/verify", content=content, timeout_s=_REDRAW_S + 30)
        return self._json(request.with_headers(Content_Type=media_type, Prefer=f"wait={_REDRAW_S}"))

    def models(self) -> Flow[dict[str, Any]]:
        return self._json(Ask("GET", "/models"))

    def model_card(self, name: str, version: str) -> Flow[dict[str, Any]]:
        return self._json(Ask("GET", _version_path(name, version)))

    def quality_report(self, name: str, version: str) -> Flow[dict[str, Any]]:
        return self._json(Ask("GET", f"{_version_path(name, version)}/report"))

    def classes(self, model: str | None) -> Flow[list[str]]:
        body = yield from ask_json(
            self.session, Ask("GET", "/classes", params={"model": model} if model else None)
        )
        return [entry["slug"] for entry in body["classes"]]

    def report(self, class_: str | None, model: str | None) -> Flow[dict[str, Any]]:
        asked = {"class": class_, "model": model}
        params = {name: value for name, value in asked.items() if value is not None}
        return self._json(Ask("GET", "/reports/fid", params=params))

    def request_report(self, model: str | None, n: int | None) -> Flow[dict[str, Any]]:
        """While a report of the same kind is under way, asking again gives that one."""
        asked: dict[str, Any] = {"model": model, "n": n}
        params = {name: value for name, value in asked.items() if value is not None}
        return self._json(Ask("POST", "/reports", params=params))

    def report_record(self, report_id: str) -> Flow[dict[str, Any]]:
        return self._json(Ask("GET", f"/reports/{quote(report_id, safe='')}"))

    def promote(self, name: str, version: str, alias: str, force_reason: str | None) -> Flow[dict[str, Any]]:
        force = {} if force_reason is None else {"force": True, "reason": force_reason}
        path = f"/models/{quote(name, safe='')}/aliases/{quote(alias, safe='')}"
        return self._json(Ask("PUT", path, json={"version": version, **force}))

    def rollback(self, name: str, alias: str) -> Flow[dict[str, Any]]:
        path = f"/models/{quote(name, safe='')}/rollback"
        return self._json(Ask("POST", path, params={"alias": alias}, is_safe=False))

    def _json(self, request: Ask) -> Flow[dict[str, Any]]:
        body: dict[str, Any] = yield from ask_json(self.session, request)
        return body


def _version_path(name: str, version: str) -> str:
    return f"/models/{quote(name, safe='')}/versions/{quote(version, safe='')}"
