"""Redis clients: RQ needs bytes back and the ledger text, so a process holds one of each."""

from collections.abc import Callable
from copy import copy
from typing import Any

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 2.0
WORKER_RETRIES = 60
"""About two minutes: a worker sits out a restart of Redis in the middle of a chunk."""
HEALTH_CHECK_INTERVAL_S = 15
SOCKET_TIMEOUT_S = 10.0
REDIS_OPERATIONS = ("ledger", "queue")
"""What a connection is for: our own records, or RQ's. Values of the label `operation`."""


class _CountedRetry(Retry):
    """Tells of every failure before it tries again. Copied with each connection."""

    def __init__(self, retries: int, on_error: Callable[[], object]) -> None:
        super().__init__(ExponentialWithJitterBackoff(base=BACKOFF_BASE_S, cap=BACKOFF_CAP_S), retries)
        self._on_error = on_error

    def call_with_retry(self, do: Any, fail: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """As Retry's."""

        def told(*failure: Any) -> Any:
            self._on_error()
            return fail(*failure)

        return super().call_with_retry(do, told, *args, **kwargs)


def open_redis(
    url: str,
    *,
    decode_responses: bool,
    retries: int = WORKER_RETRIES,
    timeout_s: float = SOCKET_TIMEOUT_S,
    on_error: Callable[[], object] = lambda: None,
) -> "Redis":
    """A client that repeats a command through `retries` lost connections before it gives up.

    timeout_s: without an answer for so long, a connection counts as lost. on_error: a plain function, called
    for every connection that is lost or refused, most of which trying again heals.

    Raises ValueError for a URL that is none. Nothing connects before the first command.
    """
    client: Redis = Redis.from_url(
        url,
        decode_responses=decode_responses,
        retry=_CountedRetry(retries, on_error),
        health_check_interval=HEALTH_CHECK_INTERVAL_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
    )
    return client


def decoding_sibling(client: "Redis") -> "Redis":
    """A client of the same server that returns text, for code that was handed RQ's connection."""
    return _sibling(client, decode_responses=True)


def impatient_sibling(client: "Redis", timeout_s: float) -> "Redis":
    """A client of the same server that gives up after a second try of `timeout_s`.

    For what is soon said again, and for what a process says when it ends.
    """
    retry = copy(client.connection_pool.connection_kwargs["retry"])
    retry.update_retries(1)  # the first finds out that Redis has been restarted
    return _sibling(client, retry=retry, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)


def _sibling(client: "Redis", **changed: Any) -> "Redis":
    pool = client.connection_pool
    kwargs = {**pool.connection_kwargs, **changed}
    return Redis(connection_pool=type(pool)(connection_class=pool.connection_class, **kwargs))
