"""Webhooks in Redis: who is to be told of a job's end, and how far that is. Every change is one script.

A job's end and the delivery that follows from it are written by the same script (`ANNOUNCE`), so that there
is exactly one delivery, whoever ends the job. It stands in a sorted set by when to try next; whoever takes it
from there holds a claim and a lease. A claim that is not settled within its lease (its process was killed) is
void: the delivery is due again, under the same message id. Times are epoch seconds, given by the caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, cast

from redis import Redis

from worker.contract import keys

RECORD_TTL_S: Final = 7 * 86_400
"""How long a settled delivery can be looked at in Redis."""
LEASE_S: Final = 120.0
"""Far above the seconds that an attempt takes, with those few before it in the queue."""

# A job's scripts begin with it and call it where the job reaches its final state. Of an end that nobody asked
# for nothing is kept, unless the job may yet be retried.
ANNOUNCE: Final = """
local function announce(webhook, due, event, now)
  if redis.call('HGET', webhook, 'state') ~= 'waiting' then return end
  local events = ',' .. redis.call('HGET', webhook, 'events') .. ','
  if not string.find(events, ',' .. event .. ',', 1, true) then
    if event == 'succeeded' then redis.call('DEL', webhook) end
    return
  end
  redis.call('HSET', webhook, 'state', 'pending', 'event', event, 'ended_at', now)
  redis.call('ZADD', due, now, redis.call('HGET', webhook, 'job_id'))
end
"""

# As ANNOUNCE, where a job that has ended is queued again: its next end is another message.
AWAIT_AGAIN: Final = """
local function await_again(webhook, due, ttl)
  if redis.call('EXISTS', webhook) == 0 then return end
  redis.call('ZREM', due, redis.call('HGET', webhook, 'job_id'))
  redis.call('HINCRBY', webhook, 'turn', 1)
  redis.call('HSET', webhook, 'state', 'waiting')
  redis.call('HDEL', webhook, 'event', 'ended_at', 'attempts', 'body', 'reason', 'settled_at')
  redis.call('EXPIRE', webhook, ttl)
end
"""

# KEYS: due. ARGV: now, end of the lease, limit, prefix of webhook keys. Returns {job id, claim} pairs.
_CLAIM: Final = """
local claimed = {}
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])) do
  local webhook = ARGV[4] .. job_id
  if redis.call('HGET', webhook, 'state') == 'pending' then
    redis.call('ZADD', KEYS[1], ARGV[2], job_id)
    table.insert(claimed, {job_id, redis.call('HINCRBY', webhook, 'claim', 1)})
  else
    redis.call('ZREM', KEYS[1], job_id)
  end
end
return claimed
"""

_IF_HELD: Final = """
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then return 0 end
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then return 0 end
"""

# KEYS: webhook, due. ARGV: claim, job id, end of the lease. Returns the attempt, 0 if the claim is void.
_BEGIN: Final = f"""{_IF_HELD}
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'attempts', 1)
"""

# KEYS: webhook, due, counters. ARGV: claim, job id, when to try again, reason. Returns 0 for a void claim.
_POSTPONE: Final = f"""{_IF_HELD}
redis.call('HSET', KEYS[1], 'reason', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[2])
redis.call('HINCRBY', KEYS[3], 'webhooks:retried', 1)
return 1
"""

# KEYS: webhook, due, counters. ARGV: claim, job id, outcome, reason, now, seconds to keep the record. Returns
# 0 if the claim is void. The secret goes with the last delivery that it can be for: a job that has not
# succeeded may be retried.
_SETTLE: Final = f"""{_IF_HELD}
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'reason', ARGV[4], 'settled_at', ARGV[5])
if redis.call('HGET', KEYS[1], 'event') == 'succeeded' then redis.call('HDEL', KEYS[1], 'secret') end
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('HINCRBY', KEYS[3], 'webhooks:' .. ARGV[3], 1)
return 1
"""


class DeliveryOutcome(StrEnum):
    """How an attempt to deliver ended, as counted. All but `retried` are final."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    GIVEN_UP = "given_up"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom to tell of which ends of a job. secret: `whsec_` and base64, or None for no signature."""

    url: str = field(repr=False)
    events: tuple[str, ...]
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt, as its claim holds it. body: what an earlier attempt sent, None at the first.

    turn: how often the job was retried before it came to this end.
    """

    job_id: str
    claim: int
    attempt: int
    webhook: Webhook
    body: str | None = field(repr=False)
    turn: int = 0

    @property
    def message_id(self) -> str:
        """The same for every attempt, so that a receiver can drop what it has seen."""
        return f"msg_{self.job_id}" + (f"_{self.turn}" if self.turn else "")


class WebhookLedger:
    """Reads and changes webhooks. `redis` must decode responses to str."""

    def __init__(self, redis: "Redis") -> None:
        self.redis = redis
        self._claim = redis.register_script(_CLAIM)
        self._begin = redis.register_script(_BEGIN)
        self._postpone = redis.register_script(_POSTPONE)
        self._settle = redis.register_script(_SETTLE)

    def claim(self, *, now: float, limit: int) -> list[tuple[str, int]]:
        """Take what is due, the longest due first: job ids with the claims to show from now on."""
        rows = self._claim(keys=[keys.WEBHOOKS_DUE], args=[now, now + LEASE_S, limit, keys.webhook_key("")])
        return [(job_id, claim) for job_id, claim in cast("list[tuple[str, int]]", rows)]

    def begin(self, job_id: str, claim: int, *, now: float) -> Delivery | None:
        """Count an attempt; the lease begins anew. None for a claim that is void."""
        attempt = self._begin(keys=_keys(job_id)[:2], args=[claim, job_id, now + LEASE_S])
        if not attempt:
            return None
        record = cast("dict[str, str]", self.redis.hgetall(keys.webhook_key(job_id)))
        webhook = Webhook(record["url"], tuple(record["events"].split(",")), record.get("secret"))
        turn = int(record.get("turn", 0))
        return Delivery(job_id, claim, int(cast("int", attempt)), webhook, record.get("body"), turn)

    def keep_body(self, delivery: Delivery, body: str) -> str:
        """What is sent at every attempt: the first body that was kept."""
        key = keys.webhook_key(delivery.job_id)
        self.redis.hsetnx(key, "body", body)
        return cast("str | None", self.redis.hget(key, "body")) or body

    def postpone(self, delivery: Delivery, *, until: float, reason: str) -> bool:
        """Try again at `until`. False for a claim that is void."""
        arguments: Sequence[str | float] = (delivery.claim, delivery.job_id, until, reason)
        return bool(self._postpone(keys=_keys(delivery.job_id), args=arguments))

    def settle(self, delivery: Delivery, outcome: DeliveryOutcome, *, now: float, reason: str = "") -> bool:
        """End the delivery; after the job's success its secret is forgotten. False for a void claim."""
        arguments = (delivery.claim, delivery.job_id, outcome, reason, now, RECORD_TTL_S)
        return bool(self._settle(keys=_keys(delivery.job_id), args=arguments))


def webhook_fields(job_id: str, webhook: Webhook) -> list[str]:
    """The hash of a webhook whose job has not ended, names and values in turn."""
    fields = ["job_id", job_id, "url", webhook.url, "events", ",".join(webhook.events), "state", "waiting"]
    return fields if webhook.secret is None else [*fields, "secret", webhook.secret]


def _keys(job_id: str) -> list[str]:
    return [keys.webhook_key(job_id), keys.WEBHOOKS_DUE, keys.COUNTERS]
