"""Redis clients: RQ needs bytes back and the ledger text, so a process holds one of each."""

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

BACKOFF_BASE_S = 0.2
BACKOFF_CAP_S = 2.0
WORKER_RETRIES = 60
"""About two minutes: a worker sits out a restart of Redis in the middle of a chunk."""
HEALTH_CHECK_INTERVAL_S = 15
SOCKET_TIMEOUT_S = 10.0


def open_redis(
    url: str, *, decode_responses: bool, retries: int = WORKER_RETRIES, timeout_s: float = SOCKET_TIMEOUT_S
) -> "Redis":
    """A client that repeats a command through `retries` lost connections before it gives up.

    timeout_s: without an answer for so long, a connection counts as lost.

    Raises ValueError for a URL that is none. Nothing connects before the first command.
    """
    client: Redis = Redis.from_url(
        url,
        decode_responses=decode_responses,
        retry=Retry(ExponentialWithJitterBackoff(base=BACKOFF_BASE_S, cap=BACKOFF_CAP_S), retries=retries),
        health_check_interval=HEALTH_CHECK_INTERVAL_S,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
    )
    return client


def decoding_sibling(client: "Redis") -> "Redis":
    """A client of the same server that returns text, for code that was handed RQ's connection."""
    pool = client.connection_pool
    kwargs = {**pool.connection_kwargs, "decode_responses": True}
    return Redis(connection_pool=type(pool)(connection_class=pool.connection_class, **kwargs))
