"""`Idempotency-Key`: a request that is sent twice makes one job and is answered twice with the same bytes.

A key is reserved together with the id that its job will have. The reservation is a lease of seconds, renewed
while the request is at work; should its process die, the next request with the key takes it over and, under
the same id, finds the job that was made or makes it. The answer is kept for a day.
Source: draft-ietf-httpapi-idempotency-key-header-07.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, Self, cast

from prometheus_client import Counter
from redis import Redis

from service.errors import (
    FieldError,
    IdempotencyConflictError,
    IdempotencyMismatchError,
    InvalidParameterError,
)
from worker.contract import keys

KEPT_S: Final = 86_400
LEASE_S: Final = 10.0
HEADER: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(r"^[\x21-\x7e]{1,255}$")
_RETRY_AFTER_S: Final = 1

# KEYS: key. ARGV: fingerprint, job id if it is new, token, now, end of the lease, seconds to keep it. Returns
# {'answer', answer}, {'other'}, {'held'} or {'ours', job id}.
_RESERVE: Final = """
local known = redis.call('HMGET', KEYS[1], 'fingerprint', 'job_id', 'answer', 'leased_until')
if known[1] and known[1] ~= ARGV[1] then return {'other'} end
if known[3] then return {'answer', known[3]} end
if known[4] and tonumber(known[4]) > tonumber(ARGV[4]) then return {'held'} end
local job_id = known[2] or ARGV[2]
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[1], 'job_id', job_id, 'token', ARGV[3],
  'leased_until', ARGV[5])
redis.call('EXPIRE', KEYS[1], ARGV[6])
return {'ours', job_id}
"""

# KEYS: key. ARGV: token, end of the lease.
_RENEW: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'leased_until', ARGV[2])
return 1
"""

# KEYS: key. ARGV: answer, seconds to keep it. The first answer stays, whoever gives it.
_COMPLETE: Final = """
redis.call('HSETNX', KEYS[1], 'answer', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return redis.call('HGET', KEYS[1], 'answer')
"""

# KEYS: key, job. ARGV: token, now. A key whose job was made stays with it; only the lease ends.
_RELEASE: Final = """
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then return redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'leased_until', ARGV[2])
return 1
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. kind: `body` as it stands here, or the job's archive or events, made again."""

    kind: Literal["body", "archive", "events"]
    job_id: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """The right to answer for a key, under the id that its job has or will have."""

    key: str
    token: str
    job_id: str


@dataclass(frozen=True, slots=True)
class RequestMark:
    """What makes two requests with one key the same."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[str, ...]
    body_sha256: str

    @classmethod
    def of(cls, method: str, path: str, query: Sequence[tuple[str, str]], body: bytes, *headers: str) -> Self:
        """headers: values that change what is asked for."""
        return cls(method, path, tuple(sorted(query)), headers, hashlib.sha256(body).hexdigest())

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()


class Idempotency:
    """Keys in Redis. replays: counts answers given again. Times are epoch seconds, given by the caller."""

    def __init__(self, redis: Redis, replays: Counter) -> None:
        self._redis = redis
        self._replays = replays
        self._reserve = redis.register_script(_RESERVE)
        self._renew = redis.register_script(_RENEW)
        self._complete = redis.register_script(_COMPLETE)
        self._release = redis.register_script(_RELEASE)

    def reserve(
        self, tenant: str, key: str, mark: RequestMark, *, job_id: str, now: float
    ) -> Reservation | Answer:
        """The right to answer, or the answer that was given. job_id: for a key that is new.

        Raises IdempotencyMismatchError, IdempotencyConflictError.
        """
        scope = json.dumps([tenant, mark.method, mark.path, key])
        redis_key = f"masan:idempotency:{hashlib.sha256(scope.encode()).hexdigest()}"
        token = secrets.token_hex(16)
        found, *rest = cast(
            "list[str]",
            self._reserve(
                keys=[redis_key], args=[mark.fingerprint, job_id, token, now, now + LEASE_S, KEPT_S]
            ),
        )
        if found == "other":
            raise IdempotencyMismatchError(
                f"{HEADER} {key!r} was used for another request; a new request needs a new key.",
                errors=[FieldError(HEADER, "was used for another request", "a key not used in the last day")],
            )
        if found == "held":
            raise IdempotencyConflictError(
                f"A request with {HEADER} {key!r} is being answered; repeat this one to get its answer.",
                retry_after_s=_RETRY_AFTER_S,
            )
        if found == "answer":
            self._replays.inc()
            return Answer(**json.loads(rest[0]))
        return Reservation(redis_key, token, rest[0])

    def renew(self, reservation: Reservation, now: float) -> None:
        """To be called every few seconds while the request is at work."""
        self._renew(keys=[reservation.key], args=[reservation.token, now + LEASE_S])

    def complete(self, reservation: Reservation, answer: Answer) -> Answer:
        """Keep the answer; from here on the key gives it. Returns what is kept: the first one."""
        kept = self._complete(keys=[reservation.key], args=[json.dumps(asdict(answer)), KEPT_S])
        return Answer(**json.loads(cast("str", kept)))

    def release(self, reservation: Reservation, now: float) -> None:
        """After a failure. A key without a job is free again; a job that was made is found by the next."""
        self._release(keys=[reservation.key, keys.job_key(reservation.job_id)], args=[reservation.token, now])


def checked_key(values: Sequence[str]) -> str | None:
    """The header's value, None without. Raises InvalidParameterError."""
    if not values:
        return None
    if len(values) > 1 or not _KEY.match(values[0]):
        reason = f"is given {len(values)} times" if len(values) > 1 else "is not acceptable"
        allowed = "1 to 255 visible ASCII characters, once"
        raise InvalidParameterError(
            f"{HEADER}: {reason}; it has {allowed}.", errors=[FieldError(HEADER, reason, allowed)]
        )
    return values[0]
