"""What is over a limit is refused before it is read; what is not passes unchanged."""

import asyncio
from collections.abc import Iterable

import pytest
from starlette.types import Message, Receive, Scope, Send

from service.errors import RequestError
from service.transport.limits import (
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_PARAMETERS,
    MAX_PATH_BYTES,
    MAX_QUERY_BYTES,
    UPLOAD_BYTES,
    LimitsMiddleware,
)

Headers = list[tuple[bytes, bytes]]


class Body:
    """A client that sends blocks, and what was asked of it and answered to it."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self.asked = 0
        self.answers: list[Message] = []

    async def receive(self) -> Message:
        self.asked += 1
        block = next(self._blocks, b"")
        return {"type": "http.request", "body": block, "more_body": bool(block)}

    async def send(self, message: Message) -> None:
        self.answers.append(message)


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads to the end and turns whatever goes wrong there into an answer."""
    status = 200
    try:
        while (await receive()).get("more_body"):
            pass
    except RequestError:
        status = 400
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def scope_of(path: str = "/generate", query: bytes = b"", headers: Headers | None = None) -> Scope:
    return {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers or [],
    }


def run(scope: Scope, blocks: Iterable[bytes] = (), *, body: Body | None = None) -> Body:
    body = body or Body(blocks)
    asyncio.run(LimitsMiddleware(reads_all, max_concurrent=2)(scope, body.receive, body.send))
    return body


def code_of(scope: Scope, body: Body) -> str:
    with pytest.raises(RequestError) as raised:
        run(scope, body=body)
    assert body.answers == []
    return raised.value.code


@pytest.mark.parametrize(
    ("scope", "code"),
    [
        (scope_of("/" + "a" * MAX_PATH_BYTES), "uri_too_long"),
        (scope_of(query=b"a" * (MAX_QUERY_BYTES + 1)), "uri_too_long"),
        (scope_of(query=b"&" * MAX_PARAMETERS), "invalid_parameter"),
        (scope_of(headers=[(b"a", b"")] * (MAX_HEADERS + 1)), "headers_too_large"),
        (scope_of(headers=[(b"a", b"b" * MAX_HEADER_BYTES)]), "headers_too_large"),
        (scope_of(headers=[(b"content-length", b"%d" % (MAX_BODY_BYTES + 1))]), "body_too_large"),
        (scope_of(headers=[(b"content-length", b"9" * 4_000)]), "body_too_large"),
        (scope_of(headers=[(b"content-length", b"-1")]), "body_too_large"),
    ],
    ids=["path", "query", "parameters", "fields", "header-bytes", "length", "long-length", "negative"],
)
def test_what_is_over_a_limit_is_refused_unread(scope: Scope, code: str) -> None:
    body = Body([b"x"])

    assert code_of(scope, body) == code
    assert body.asked == 0


@pytest.mark.parametrize(
    "scope",
    [
        scope_of("/" + "a" * (MAX_PATH_BYTES - 1)),
        scope_of(query=b"a" * MAX_QUERY_BYTES),
        scope_of(query=b"&" * (MAX_PARAMETERS - 1)),
        scope_of(headers=[(b"a", b"")] * MAX_HEADERS),
        scope_of(headers=[(b"a", b"b" * (MAX_HEADER_BYTES - 1))]),
        scope_of(headers=[(b"content-length", b"%d" % MAX_BODY_BYTES)]),
    ],
)
def test_what_just_fits_passes(scope: Scope) -> None:
    assert run(scope).answers[0]["status"] == 200


def test_a_body_without_a_length_is_cut_at_the_limit() -> None:
    body = Body(iter(lambda: b"x" * 65_536, b""))

    assert code_of(scope_of(), body) == "body_too_large"
    assert body.asked == MAX_BODY_BYTES // 65_536 + 1


def test_an_upload_may_be_larger() -> None:
    path, limit = next(iter(UPLOAD_BYTES.items()))

    body = run(scope_of(path), [b"x" * (MAX_BODY_BYTES + 1)])

    assert body.answers[0]["status"] == 200
    assert code_of(scope_of(path), Body([b"x" * limit, b"x"])) == "body_too_large"


def test_no_more_than_so_many_at_once_but_probes() -> None:
    asyncio.run(_fill())


async def _fill() -> None:
    release = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limits = LimitsMiddleware(waits, max_concurrent=2)

    async def ask(path: str) -> int:
        body = Body([])
        try:
            await limits(scope_of(path), body.receive, body.send)
        except RequestError as error:
            return error.status
        return int(body.answers[0]["status"])

    waiting = [asyncio.create_task(ask("/jobs")) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await ask("/jobs")
    probe = asyncio.create_task(ask("/readyz"))
    await asyncio.sleep(0)
    release.set()

    assert (refused, await asyncio.gather(*waiting, probe)) == (503, [200, 200, 200])
    assert await ask("/jobs") == 200
