"""Flows, and the two ways to carry them out."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from masan.exchange import (
    Ask,
    AsyncExchange,
    Do,
    Emit,
    Exchange,
    Fetch,
    Flow,
    Open,
    Pause,
    ReadBlock,
    intercept,
)
from tests.unit.masan.test_client import ScriptedServer, answer, send_file

CONTENT = bytes(range(256)) * 400


def read_all() -> Flow[bytes]:
    response = yield Open(Ask("GET", "/file"))
    assert response.status_code == 200
    blocks = []
    while block := (yield ReadBlock()):
        blocks.append(block)
        yield Emit(len(block))
    yield Pause(0.0)
    return b"".join((yield Do(lambda: blocks)))


def in_this_thread(url: str, flow: Flow[Any]) -> Any:
    exchange = Exchange(url, {"X": "1"}, 5.0)
    try:
        return exchange.run(flow)
    finally:
        exchange.close()


def on_asyncio(url: str, flow: Flow[Any]) -> Any:
    async def main() -> Any:
        exchange = AsyncExchange(url, {"X": "1"}, 5.0)
        try:
            return await exchange.run(flow)
        finally:
            await exchange.close()

    return asyncio.run(main())


@pytest.mark.parametrize("carry_out", [in_this_thread, on_asyncio])
def test_a_flow_reads_a_stream(carry_out: Callable[[str, Flow[Any]], Any]) -> None:
    with ScriptedServer(send_file(CONTENT)) as server:
        assert carry_out(server.url, read_all()) == CONTENT


@pytest.mark.parametrize("carry_out", [in_this_thread, on_asyncio])
def test_what_goes_wrong_is_thrown_into_the_flow(carry_out: Callable[[str, Flow[Any]], Any]) -> None:
    def flow() -> Flow[str]:
        try:
            yield Do(lambda: 1 // 0)
        except ZeroDivisionError as error:
            return str(error)
        return "nothing"

    assert "zero" in carry_out("http://127.0.0.1:1", flow())


@pytest.mark.parametrize("carry_out", [in_this_thread, on_asyncio])
def test_another_host_is_sent_no_headers_of_ours(carry_out: Callable[[str, Flow[Any]], Any]) -> None:
    with ScriptedServer(answer(200, {})) as ours, ScriptedServer(answer(200, {})) as theirs:

        def flow() -> Flow[None]:
            yield Fetch(Ask("GET", "/here"))
            yield Fetch(Ask("GET", f"{theirs.url}/there"))

        carry_out(ours.url, flow())

    assert ours.asked[0][2].get("X") == "1"
    assert "X" not in theirs.asked[0][2]


def test_what_is_intercepted_does_not_get_out() -> None:
    seen: list[int] = []
    with ScriptedServer(send_file(CONTENT)) as server:
        exchange = Exchange(server.url, {}, 5.0)
        emitted = list(exchange.iterate(intercept(read_all(), seen.append)))
        exchange.close()

    assert emitted == []
    assert sum(seen) == len(CONTENT)


def test_whoever_stops_iterating_leaves_nothing_open() -> None:
    closed: list[str] = []

    def flow() -> Flow[None]:
        try:
            yield from read_all()
        finally:
            closed.append("flow")

    with ScriptedServer(send_file(CONTENT)) as server:
        exchange = Exchange(server.url, {}, 5.0)
        emitted = exchange.iterate(flow())
        next(emitted)
        emitted.close()  # type: ignore[attr-defined]
        exchange.close()

    assert closed == ["flow"]
