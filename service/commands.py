"""Commands to Redis from the event loop: what is asked for at the same time travels together.

While one batch is on its way the next one gathers, on one connection; so a lone command leaves at once, and
a thousand a second share their round trips.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.contract.redis_clients import BACKOFF_BASE_S, BACKOFF_CAP_S, HEALTH_CHECK_INTERVAL_S

_MAX_BATCH: Final = 200
Argument = str | bytes | int | float


class Script:
    """Lua that is sent whole once and by its digest from then on."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha1 = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class Commands:
    """What the event loop asks Redis. Connects at first use.

    retries: how often a batch whose connection was lost is sent again, so commands have to be harmless
    when done twice. timeout_s: without an answer for so long, a connection counts as lost. on_error: called
    for every connection that is lost or refused.
    """

    def __init__(
        self, redis_url: str, *, retries: int, timeout_s: float, on_error: Callable[[], object]
    ) -> None:
        self._retry = _CountedRetry(retries, on_error)
        self._timeout_s = timeout_s
        pool: Any = ConnectionPool.from_url(
            redis_url,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),  # what is tried again is the whole attempt
            health_check_interval=HEALTH_CHECK_INTERVAL_S,
            socket_timeout=None,  # nor is there another limit than that of the attempt
        )
        self._connection = pool.make_connection()
        self._waiting: list[tuple[tuple[Argument, ...], asyncio.Future[Any]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def run(self, *command: Argument) -> Any:
        """The answer to one command, as Redis gives it. Raises RedisError."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        if self._sender is None:
            self._sender = loop.create_task(self._send())
        return await answer

    async def call(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """What a script returns. Raises RedisError."""
        try:
            return await self.run("EVALSHA", script.sha1, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.run("EVAL", script.source, len(keys), *keys, *arguments)

    async def aclose(self) -> None:
        """Close the connection; what waits for an answer gets none."""
        if self._sender is not None:
            self._sender.cancel()
        await self._connection.disconnect()

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
                await self._exchange(batch)
        finally:
            self._sender = None
            for _, answer in self._waiting:
                answer.cancel()
            self._waiting = []

    async def _exchange(self, batch: list[tuple[tuple[Argument, ...], asyncio.Future[Any]]]) -> None:
        answers: Sequence[Any]
        # Its stub says a tuple of one, and means one of any length.
        packed = b"".join([pack_command(command) for command, _ in batch])  # type: ignore[arg-type]
        try:
            answers = await self._retry.call_with_retry(
                lambda: self._attempt(packed, len(batch)), self._connection_lost
            )
        except (RedisError, OSError) as error:
            answers = [error] * len(batch)
        except BaseException:
            for _, waiter in batch:
                waiter.cancel()
            raise
        for (_, waiter), answer in zip(batch, answers, strict=True):
            if waiter.done():  # its request has gone
                continue
            if isinstance(answer, Exception):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)

    async def _attempt(self, packed: bytes, count: int) -> list[Any]:
        """Connect unless that is done, send the commands and read as many answers.

        Raises ConnectionError, TimeoutError of Redis.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._connection.send_packed_command(packed)
                return [await self._read() for _ in range(count)]
        except TimeoutError:
            raise RedisTimeoutError(f"no answer within {self._timeout_s:g} s") from None

    async def _read(self) -> Any:
        """The next answer; an error that Redis answered is one, too."""
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error

    async def _connection_lost(self, _error: Exception) -> None:
        await self._connection.disconnect(nowait=True)


class _CountedRetry(Retry):
    """Tells of every failure before it tries again. Copied with each connection."""

    def __init__(self, retries: int, on_error: Callable[[], object]) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=BACKOFF_BASE_S, cap=BACKOFF_CAP_S), retries)
        self._on_error = on_error

    async def call_with_retry(self, do: Any, fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As Retry's."""

        async def told(*failure: Any) -> Any:
            self._on_error()
            return await fail(*failure)

        return await super().call_with_retry(do, told, *args, **kwargs)
