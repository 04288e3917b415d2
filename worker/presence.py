"""A worker's entry in the registry of workers, kept fresh from a thread for as long as the process lives."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Literal

from redis import Redis
from redis.exceptions import RedisError

from model_store.store import Checkpoint
from worker.contract import keys
from worker.contract.redis_clients import impatient_sibling

logger = logging.getLogger(__name__)

HEARTBEAT_S = 3.0
REGISTERING_S = 120.0
"""How long a worker that starts waits for Redis: as long as one at work sits out a restart."""
_RETRY_S = 1.0
_SPEED_MEMORY = 0.5
"""Weight of the past in the average speed: a few chunks decide."""

State = Literal["starting", "idle", "busy", "stopping"]


class Presence:
    """What the fleet sees of this worker. `redis` must decode responses to str.

    The entry is JSON: {state, device, model, version, digest, images_per_second, heartbeat, pid, error};
    heartbeat in epoch seconds, `error` says why the default model is not warm. registry: the hash it stands
    in; facts: what else the entry tells.
    """

    def __init__(
        self,
        redis: "Redis",
        name: str,
        device: str,
        *,
        registry: str = keys.WORKERS,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self._redis = impatient_sibling(redis, HEARTBEAT_S)
        self._has_redis = True
        self._name = name
        self._registry = registry
        self._facts = dict(facts or {})
        self._device = device
        self._state: State = "starting"
        self._checkpoint: Checkpoint | None = None
        self._error: str | None = None
        self.images_per_second: float | None = None
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="presence", daemon=True)

    def start(self) -> None:
        """Register, then keep beating. Raises RedisError after `REGISTERING_S` without Redis."""
        give_up_at = time.monotonic() + REGISTERING_S
        while True:
            try:
                self._publish()
                break
            except RedisError as error:
                if time.monotonic() > give_up_at:
                    raise
                self._tell(error)
                self._stop.wait(_RETRY_S)
        self._tell(None)
        self._thread.start()

    def set_state(self, state: State) -> None:
        """Tell a change at once; a missed message is made good by the next heartbeat."""
        if state != self._state:
            self._state = state
            self._try_publish()

    def set_model(self, checkpoint: Checkpoint | None, error: str | None = None) -> None:
        """The checkpoint this worker is warm for, or why there is none."""
        self._checkpoint, self._error = checkpoint, error
        self._try_publish()

    def record_speed(self, images: int, seconds: float) -> None:
        """Take a chunk's speed into the running average."""
        speed = images / max(seconds, 1e-6)
        past = self.images_per_second
        self.images_per_second = speed if past is None else _SPEED_MEMORY * past + (1 - _SPEED_MEMORY) * speed

    def stop(self) -> None:
        """Stop beating and leave the registry, for good: a chunk's thread may still tell its last state."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(HEARTBEAT_S)
        try:
            with self._writing:
                self._redis.hdel(self._registry, self._name)
        except RedisError:
            logger.warning("could not leave the registry", extra={"worker": self._name})

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            self._try_publish()

    def _try_publish(self) -> None:
        try:
            self._publish()
        except RedisError as error:
            self._tell(error)
        else:
            self._tell(None)

    def _tell(self, error: RedisError | None) -> None:
        """Once that Redis is away, and once that it is back: heartbeats are many."""
        if self._has_redis == (error is None):
            return
        self._has_redis = error is None
        if error is None:
            logger.info("Redis is back", extra={"worker": self._name})
        else:
            logger.warning("Redis is away, trying again", extra={"worker": self._name, "reason": str(error)})

    def _publish(self) -> None:
        """What is written last is what was so last: a heartbeat must not undo a change told beside it."""
        with self._writing:
            if not self._stop.is_set():
                self._redis.hset(self._registry, self._name, json.dumps(self._entry()))

    def _entry(self) -> dict[str, Any]:
        manifest = self._checkpoint.manifest if self._checkpoint else None
        return self._facts | {
            "state": self._state,
            "device": self._device,
            "model": manifest.name if manifest else None,
            "version": manifest.version if manifest else None,
            "digest": manifest.digest if manifest else None,
            "images_per_second": self.images_per_second,
            "heartbeat": time.time(),
            "pid": os.getpid(),
            "error": self._error,
        }
