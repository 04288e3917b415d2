"""Draining: no new job is accepted by any process of the fleet, while those under way go on."""

import math
from typing import Final, cast

from redis import Redis

from service.errors import DrainingError
from worker.contract import keys

RETRY_S: Final = 30


class Drain:
    """The switch, kept in Redis. `redis` must decode responses to str."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def since(self) -> float | None:
        """When draining began, epoch seconds; None while jobs are accepted."""
        began = cast("str | None", self._redis.get(keys.DRAINING))
        if began is None:
            return None
        try:
            moment = float(began)
        except ValueError:  # the key is what counts, whoever wrote it
            return 0.0
        return moment if math.isfinite(moment) else 0.0

    def switch(self, *, on: bool, now: float) -> float | None:
        """Begin or end draining; beginning twice keeps the first moment. Returns as `since`."""
        if on:
            self._redis.set(keys.DRAINING, repr(now), nx=True)
        else:
            self._redis.delete(keys.DRAINING)
        return self.since()

    def check(self) -> None:
        """Raises DrainingError while no new job is accepted."""
        if self.since() is not None:
            raise draining()


def draining() -> DrainingError:
    """What is answered to who asks for a new job."""
    return DrainingError(
        "The service is drained: jobs under way go on, new ones are not accepted until an admin "
        "ends that (POST /admin/drain).",
        retry_after_s=RETRY_S,
    )
