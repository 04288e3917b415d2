"""How much each API key may ask for: requests a minute, images a day, jobs at a time.

All is counted in Redis, each decision by one script, so that any number of service processes share it.
Answers tell what is left in `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11).
"""

import logging
import math
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol, TypeVar, cast

from fastapi.concurrency import run_in_threadpool
from redis import Redis
from redis.exceptions import RedisError

from service.access.drain import Drain
from service.access.key_ring import Principal, tenant_of
from service.errors import QuotaExceededError, RateLimitedError, TooManyJobsError
from worker.contract import keys

logger = logging.getLogger(__name__)

MINUTE_S: Final = 60
DAY_S: Final = 86_400
RESERVED_S: Final = 60
"""A place taken for a job that was never written is free again after this long."""
KEEP_JOBS_S: Final = 30 * DAY_S
"""After its last job, longer than any lasts, nothing is left of a key."""
JOBS_RETRY_AFTER_S: Final = 10

# The generic cell rate algorithm, as virtual scheduling: ITU-T I.371, annex A. One number is kept, the
# theoretical arrival time: when all that was asked for would have arrived at an even pace.
# KEYS: arrival time, images of the day. ARGV: now, requests a minute or 0, period in seconds.
# Returns {passed (0/1), remaining, seconds until one more passes, seconds until all do, images used}.
_LOOK: Final = """
local used = tonumber(redis.call('GET', KEYS[2]) or '0')
local limit = tonumber(ARGV[2])
if limit == 0 then return {1, 0, 0, 0, used} end
local now, period = tonumber(ARGV[1]), tonumber(ARGV[3])
local interval = period / limit
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
if due > now + period then  -- the clock was put back
  due = now + period
  redis.call('SET', KEYS[1], string.format('%.6f', due), 'EX', period + 1)
end
local passes_in = due + interval - period - now
if passes_in > 1e-6 then return {0, 0, math.ceil(passes_in), math.ceil(due - now), used} end
due = due + interval
redis.call('SET', KEYS[1], string.format('%.6f', due), 'EX', math.ceil(due - now) + 1)
return {1, math.floor((now + period - due) / interval + 1e-6), 0, math.ceil(due - now), used}
"""

# KEYS: images of the day, jobs under way. ARGV: token, now, images, images a day or 0, jobs at a time or 0,
# seconds to keep the day, seconds to keep a token, prefix of job keys, seconds to keep the jobs. Returns
# {verdict, number}.
_RESERVE: Final = """
local jobs_limit, images_limit, images = tonumber(ARGV[5]), tonumber(ARGV[4]), tonumber(ARGV[3])
if jobs_limit > 0 then
  local rows = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
  for i = 1, #rows, 2 do
    local status = redis.call('HGET', ARGV[8] .. rows[i], 'status')
    local is_over = status == 'succeeded' or status == 'failed' or status == 'canceled' or status == 'expired'
    local is_lost = not status and tonumber(ARGV[2]) - tonumber(rows[i + 1]) > tonumber(ARGV[7])
    if is_over or is_lost then redis.call('ZREM', KEYS[2], rows[i]) end
  end
  local count = redis.call('ZCARD', KEYS[2])
  if count >= jobs_limit then return {'jobs', count} end
end
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
if images_limit > 0 and images > 0 then
  if used + images > images_limit then return {'images', used} end
  used = redis.call('INCRBY', KEYS[1], images)
  redis.call('EXPIRE', KEYS[1], ARGV[6])
end
if jobs_limit > 0 then
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[9])
end
return {'ok', used}
"""

# KEYS: as of _RESERVE. ARGV: token, images to give back.
_GIVE_BACK: Final = """
redis.call('ZREM', KEYS[2], ARGV[1])
if tonumber(ARGV[2]) > 0 and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('DECRBY', KEYS[1], ARGV[2])
end
return 1
"""


@dataclass(slots=True)
class Standing:
    """What a request's key has left, as far as it is known by now; written into the answer's headers."""

    _policies: dict[str, str] = field(default_factory=dict)
    _left: dict[str, str] = field(default_factory=dict)

    def note_requests(self, limit: int, remaining: int, reset_s: int) -> None:
        self._policies["requests"] = f'"requests";q={limit};w={MINUTE_S}'
        self._left["requests"] = f'"requests";r={remaining};t={reset_s}'

    def note_images(self, limit: int, used: int, reset_s: int) -> None:
        # The draft's default quota unit is a request; an image is none.
        self._policies["images"] = f'"images";q={limit};w={DAY_S};qu="images"'
        self._left["images"] = f'"images";r={max(0, limit - used)};t={reset_s}'

    def headers(self) -> list[tuple[bytes, bytes]]:
        """RFC 9651 lists; none for a key without limits."""
        if not self._policies:
            return []
        return [
            (b"ratelimit-policy", ", ".join(self._policies.values()).encode()),
            (b"ratelimit", ", ".join(self._left.values()).encode()),
        ]


standing_var: ContextVar[Standing | None] = ContextVar("standing", default=None)
"""Set for each request by the middleware, which reads it when the answer begins."""


@dataclass(frozen=True, slots=True)
class Place:
    """What was taken for a job that is about to be started. images: that count for today."""

    redis_keys: list[str]
    token: str
    images: int
    taken_at: float
    is_counted: bool


class _Started(Protocol):
    """A job as it comes back from being started, in whatever form."""

    @property
    def job_id(self) -> str: ...


_StartedT = TypeVar("_StartedT", bound=_Started)


class RateLimits:
    """What stands before requests and jobs. `redis` must decode responses to str. Times: epoch seconds."""

    def __init__(self, redis: Redis, drain: Drain) -> None:
        self._drain = drain
        self._redis = redis
        self._look = redis.register_script(_LOOK)
        self._reserve = redis.register_script(_RESERVE)
        self._give_back = redis.register_script(_GIVE_BACK)

    def pass_request(self, principal: Principal, now: float) -> None:
        """Count one request. Raises RateLimitedError."""
        limits, tenant = principal.limits, tenant_of(principal)
        if not limits_requests(principal):
            return
        passed, remaining, wait_s, reset_s, used = cast(
            "tuple[int, int, int, int, int]",
            self._look(
                keys=[f"masan:rate:{tenant}", _day_key(tenant, now)],
                args=[now, limits.requests_per_minute or 0, MINUTE_S],
            ),
        )
        standing = standing_var.get()
        if standing is not None and limits.requests_per_minute is not None:
            standing.note_requests(limits.requests_per_minute, remaining, reset_s)
        if standing is not None and limits.images_per_day is not None:
            standing.note_images(limits.images_per_day, used, seconds_left(now))
        if not passed:
            raise RateLimitedError(
                f"The key {principal.key_id} may send {limits.requests_per_minute} requests a minute.",
                retry_after_s=max(1, wait_s),
            )

    def admit(
        self, principal: Principal, images: int, now: float, start: Callable[[], _StartedT]
    ) -> _StartedT:
        """Start a job of `images` images that count for today, unless the key has no more of them.

        images: 0 for a job whose images were counted before. What `start` raises gives them back.
        Raises DrainingError, TooManyJobsError, QuotaExceededError, and what `start` raises.
        """
        self._drain.check()
        if not limits_jobs(principal):
            return start()
        place = self.reserve(principal, images, now)
        try:
            job = start()
        except BaseException:
            self.give_back(place)
            raise
        self.keep(place, job.job_id)
        return job

    def reserve(self, principal: Principal, images: int, now: float) -> Place:
        """A place for a job of a key with limits. Raises TooManyJobsError, QuotaExceededError."""
        limits = principal.limits
        tenant, token = tenant_of(principal), uuid.uuid4().hex
        redis_keys = [_day_key(tenant, now), _active_key(tenant)]
        verdict, number = cast(
            "tuple[str, int]",
            self._reserve(
                keys=redis_keys,
                args=[
                    token,
                    now,
                    images,
                    limits.images_per_day or 0,
                    limits.max_active_jobs or 0,
                    2 * DAY_S,
                    RESERVED_S,
                    keys.job_key(""),
                    KEEP_JOBS_S,
                ],
            ),
        )
        self._refuse(verdict, number, principal, images, now)
        charged = images if limits.images_per_day is not None else 0
        return Place(redis_keys, token, charged, now, limits.max_active_jobs is not None)

    def keep(self, place: Place, job_id: str) -> None:
        """The place is the job's from here on."""
        if place.is_counted:
            pipeline = self._redis.pipeline()
            pipeline.zadd(place.redis_keys[1], {job_id: place.taken_at})
            pipeline.zrem(place.redis_keys[1], place.token)
            pipeline.execute()

    def give_back(self, place: Place) -> None:
        """For a job that was not started."""
        try:
            self._give_back(keys=place.redis_keys, args=[place.token, place.images])
        except RedisError as error:
            extra = {"images": place.images, "reason": str(error)}
            logger.warning("quota could not be given back", extra=extra)

    async def admit_soon(
        self, principal: Principal, images: int, now: float, start: Callable[[], Awaitable[_StartedT]]
    ) -> _StartedT:
        """As `admit`, for a `start` that looks itself whether jobs are accepted; does not block."""
        if not limits_jobs(principal):
            return await start()
        await run_in_threadpool(self._drain.check)
        place = await run_in_threadpool(self.reserve, principal, images, now)
        try:
            submitted = await start()
        except BaseException:
            await run_in_threadpool(self.give_back, place)
            raise
        await run_in_threadpool(self.keep, place, submitted.job_id)
        return submitted

    def _refuse(self, verdict: str, number: int, principal: Principal, images: int, now: float) -> None:
        """Raises what the verdict says; notes what is left."""
        limits = principal.limits
        standing = standing_var.get()
        if standing is not None and limits.images_per_day is not None and verdict != "jobs":
            standing.note_images(limits.images_per_day, number, seconds_left(now))
        if verdict == "jobs":
            raise TooManyJobsError(
                f"{number} jobs of the key {principal.key_id} are under way; it may have "
                f"{limits.max_active_jobs} at a time.",
                retry_after_s=JOBS_RETRY_AFTER_S,
            )
        if verdict == "images":
            raise QuotaExceededError(
                f"The key {principal.key_id} may ask for {limits.images_per_day} images a day (UTC) and has "
                f"asked for {number}; {images} more are too many.",
                retry_after_s=seconds_left(now),
            )


def limits_jobs(principal: Principal) -> bool:
    """Whether a job of the key needs a place."""
    limits = principal.limits
    return limits.images_per_day is not None or limits.max_active_jobs is not None


def limits_requests(principal: Principal) -> bool:
    """Whether requests of the key are counted, or told what is left."""
    limits = principal.limits
    return limits.requests_per_minute is not None or limits.images_per_day is not None


def seconds_left(now: float) -> int:
    """Until the UTC day ends, at least 1."""
    return max(1, math.ceil(DAY_S - now % DAY_S))


def _day_key(tenant: str, now: float) -> str:
    return f"masan:images-asked:{tenant}:{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"


def _active_key(tenant: str) -> str:
    return f"masan:jobs-admitted:{tenant}"
