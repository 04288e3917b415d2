"""The keys that are accepted now: from the environment and the keys file, read again when that changes."""

import hmac
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from service.access.api_keys import NO_LIMITS, ApiKey, KeyLimits, KeysFileError, Scope, hash_key, read_keys
from service.errors import SettingsError
from service.settings import ServiceSettings

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""A key that was revoked is refused at the latest after this long."""

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request. key_id: None on this machine while there are no keys."""

    key_id: str | None
    scopes: frozenset[Scope]
    limits: KeyLimits = NO_LIMITS

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


LOCAL = Principal(key_id=None, scopes=frozenset({Scope.ADMIN}))
"""Anyone on this machine, while there are no keys."""


def tenant_of(principal: Principal) -> str:
    """Whose jobs are whose: the id of the key, empty without keys."""
    return principal.key_id or ""


class KeyRing:
    """All keys that are accepted. Falsy only where neither a key nor a keys file was configured.

    A keys file that is emptied, broken or gone later on never opens the service: what was read last holds,
    and the log says so. monotonic: seconds, decides when the file is looked at again.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey],
        path: Path | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """path: of more keys. Raises KeysFileError."""
        self._fixed = tuple(keys)
        self._path = path
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._looked_at = monotonic()
        self._signature = _signature_of(path) if path else None
        self._keys = self._fixed + (read_keys(path) if path else ())

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> Self:
        """Raises SettingsError for a keys file that cannot be read."""
        keys = []
        if settings.api_key is not None:
            digest = hash_key(settings.api_key.get_secret_value())
            keys.append(ApiKey(id="environment", sha256=digest, scopes=frozenset({Scope.ADMIN})))
        try:
            return cls(keys, settings.api_keys_file)
        except KeysFileError as error:
            raise SettingsError("MASAN_API_KEYS_FILE", f"= {error}") from error

    def __bool__(self) -> bool:
        return bool(self._fixed) or self._path is not None

    def find(self, key: str, now: float) -> Principal | None:
        """Whose key this is, None for one that is unknown, revoked or expired. now: epoch seconds.

        Compares with all keys in constant time.
        """
        self._look()
        digest = hash_key(key)
        found = None
        for candidate in self._keys:
            if hmac.compare_digest(candidate.sha256, digest):
                found = candidate
        if found is None or found.state(now) != "active":
            return None
        return Principal(found.id, found.scopes, found.limits)

    def _look(self) -> None:
        """Read the file again if it is another than the last time."""
        if self._path is None or self._monotonic() - self._looked_at < LOOK_EVERY_S:
            return
        with self._lock:
            if self._monotonic() - self._looked_at < LOOK_EVERY_S:
                return
            self._looked_at = self._monotonic()
            signature = _signature_of(self._path)
            if signature == self._signature:
                return
            self._signature = signature
            try:
                self._keys = self._fixed + read_keys(self._path)
            except KeysFileError as error:
                logger.error("keys file unusable; the keys read before stay", extra={"reason": str(error)})
            else:
                logger.info("keys file read", extra={"keys": len(self._keys)})


def _signature_of(path: Path) -> _Signature | None:
    """Changes with the file; None while it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
