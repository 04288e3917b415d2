"""What the client does is written once, as flows: generators that ask for all input and output they need.

A flow yields one of the steps below and is sent what came of it, or thrown what went wrong. `Exchange`
carries steps out in the calling thread, `AsyncExchange` on asyncio; they are all that is written twice.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. url: a path of the server, or a whole URL of another host, which is sent no key of ours.

    timeout_s: of silence; None: the client's own. is_safe: whether it may reach the server twice.
    """

    method: str
    url: str
    params: Mapping[str, str | int | float] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    content: bytes | None = None
    timeout_s: float | None = None
    is_safe: bool = True

    def with_headers(self, **headers: str) -> "Ask":
        """A copy with more headers; `_` stands for `-`."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **more})

    @property
    def options(self) -> dict[str, Any]:
        """As httpx's `build_request` takes them."""
        timeout = {} if self.timeout_s is None else {"timeout": self.timeout_s}
        return {
            "method": self.method,
            "url": self.url,
            "params": dict(self.params) if self.params else None,
            "headers": dict(self.headers),
            "json": self.json,
            "content": self.content,
            **timeout,
        }


@dataclass(frozen=True, slots=True)
class Fetch:
    """Gives the answer, read whole."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class Open:
    """Gives an answer whose body is still to be read by `ReadBlock` or `ReadRest`; closes the one before."""

    ask: Ask


@dataclass(frozen=True, slots=True)
class ReadBlock:
    """Gives the next bytes of the open answer as they were sent; empty at its end."""


@dataclass(frozen=True, slots=True)
class ReadRest:
    """Reads the open answer whole, so that its `content` is there."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Waits."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Do:
    """Gives what a function returns that takes its time, such as reading a large file."""

    function: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Emit:
    """Hands a value to whoever iterates."""

    value: Any


Step = Fetch | Open | ReadBlock | ReadRest | Pause | Do | Emit
Flow = Generator[Step, Any, _T]


def intercept(flow: Flow[_T], handle: Callable[[Any], None]) -> Flow[_T]:
    """The same flow; what it emits goes to `handle`, which may raise, in place of the outside."""
    answer, error = None, None
    with closing(flow):
        while True:
            try:
                step = flow.throw(error) if error is not None else flow.send(answer)
            except StopIteration as stop:
                result: _T = stop.value
                return result
            answer, error = None, None
            if isinstance(step, Emit):
                handle(step.value)
                continue
            try:
                answer = yield step
            except Exception as caught:
                error = caught


def _is_foreign(ask: Ask) -> bool:
    return not ask.url.startswith("/")


def is_loopback(url: str) -> bool:
    """A proxy of the environment cannot reach this machine's own addresses."""
    return httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}


def _settings(base_url: str, headers: dict[str, str], timeout_s: float) -> dict[str, Any]:
    return {
        "base_url": base_url,
        "headers": headers,
        "timeout": timeout_s,
        "trust_env": not is_loopback(base_url),
    }


class Exchange:
    """Carries flows out in the calling thread. headers: sent to `base_url` alone."""

    def __init__(self, base_url: str, headers: dict[str, str], timeout_s: float) -> None:
        self._http = httpx.Client(**_settings(base_url, headers, timeout_s))
        self._others: dict[bool, httpx.Client] = {}
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Close all connections."""
        for http in (self._http, *self._others.values()):
            http.close()

    def run(self, flow: Flow[_T]) -> _T:
        """What the flow returns."""
        results: list[_T] = []
        for _ in self.iterate(flow, results):
            pass
        return results[0]

    def iterate(self, flow: Flow[_T], results: list[_T] | None = None) -> Iterator[Any]:
        """What the flow emits. results: takes what it returns."""
        answer: Any = None
        error: Exception | None = None
        opened: httpx.Response | None = None
        blocks: Iterator[bytes] = iter(())
        try:
            while True:
                try:
                    step = flow.throw(error) if error is not None else flow.send(answer)
                except StopIteration as stop:
                    if results is not None:
                        results.append(stop.value)
                    return
                answer, error = None, None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    match step:
                        case Fetch(ask):
                            http = self._of(ask)
                            answer = http.send(http.build_request(**ask.options))
                        case Open(ask):
                            if opened is not None:
                                opened.close()
                            http = self._of(ask)
                            answer = opened = http.send(http.build_request(**ask.options), stream=True)
                            blocks = opened.iter_raw()
                        case ReadBlock():
                            answer = next(blocks, b"")
                        case ReadRest():
                            answer = opened.read() if opened is not None else b""
                        case Pause(seconds):
                            time.sleep(seconds)
                        case Do(function):
                            answer = function()
                except Exception as caught:
                    error = caught
        finally:
            flow.close()
            if opened is not None:
                opened.close()

    def _of(self, ask: Ask) -> httpx.Client:
        if not _is_foreign(ask):
            return self._http
        local = is_loopback(ask.url)
        if local not in self._others:
            self._others[local] = httpx.Client(timeout=self._timeout_s, trust_env=not local)
        return self._others[local]


class AsyncExchange:
    """Carries flows out on asyncio; what takes its time without waiting for the network, in a thread."""

    def __init__(self, base_url: str, headers: dict[str, str], timeout_s: float) -> None:
        self._http = httpx.AsyncClient(**_settings(base_url, headers, timeout_s))
        self._others: dict[bool, httpx.AsyncClient] = {}
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Close all connections."""
        for http in (self._http, *self._others.values()):
            await http.aclose()

    async def run(self, flow: Flow[_T]) -> _T:
        """What the flow returns."""
        results: list[_T] = []
        async with aclosing(self.iterate(flow, results)) as emitted:
            async for _ in emitted:
                pass
        return results[0]

    async def iterate(self, flow: Flow[_T], results: list[_T] | None = None) -> Any:
        """What the flow emits. results: takes what it returns."""
        answer: Any = None
        error: Exception | None = None
        opened: httpx.Response | None = None
        blocks: AsyncIterator[bytes] | None = None
        try:
            while True:
                try:
                    step = flow.throw(error) if error is not None else flow.send(answer)
                except StopIteration as stop:
                    if results is not None:
                        results.append(stop.value)
                    return
                answer, error = None, None
                if isinstance(step, Emit):
                    yield step.value
                    continue
                try:
                    match step:
                        case Fetch(ask):
                            http = self._of(ask)
                            answer = await http.send(http.build_request(**ask.options))
                        case Open(ask):
                            if opened is not None:
                                await opened.aclose()
                            http = self._of(ask)
                            answer = opened = await http.send(http.build_request(**ask.options), stream=True)
                            blocks = opened.aiter_raw()
                        case ReadBlock():
                            answer = b"" if blocks is None else await anext(blocks, b"")
                        case ReadRest():
                            answer = await opened.aread() if opened is not None else b""
                        case Pause(seconds):
                            await asyncio.sleep(seconds)
                        case Do(function):
                            answer = await asyncio.to_thread(function)
                except Exception as caught:
                    error = caught
        finally:
            flow.close()
            if opened is not None:
                await opened.aclose()

    def _of(self, ask: Ask) -> httpx.AsyncClient:
        if not _is_foreign(ask):
            return self._http
        local = is_loopback(ask.url)
        if local not in self._others:
            self._others[local] = httpx.AsyncClient(timeout=self._timeout_s, trust_env=not local)
        return self._others[local]
