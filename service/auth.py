"""Who may ask: API keys, kept as hashes. Without any key, this machine alone.

Source: RFC 6750 for `Authorization: Bearer`.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security, params
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from model_store.manifest import Sha256
from service.errors import ForbiddenError, SettingsError, UnauthorizedError
from service.settings import ServiceSettings, is_loopback

_bearer = HTTPBearer(auto_error=False, description="An API key")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="An API key")


class Scope(StrEnum):
    """What a key may be used for; `admin` includes the others."""

    GENERATE = "generate"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_PROMOTE = "models:promote"
    ADMIN = "admin"


class ApiKey(BaseModel):
    """One line of the keys file: the key itself is not kept, only its sha256."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Sha256
    scopes: frozenset[Scope]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who sent a request."""

    key_id: str | None
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes


LOCAL = Principal(key_id=None, scopes=frozenset({Scope.ADMIN}))
"""Anyone on this machine, while there are no keys."""


class KeyRing:
    """All keys that are accepted. Falsy if there are none."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> Self:
        """Raises SettingsError for a keys file that cannot be read."""
        keys = []
        if settings.api_key is not None:
            digest = hashlib.sha256(settings.api_key.get_secret_value().encode()).hexdigest()
            keys.append(ApiKey(id="environment", sha256=digest, scopes=frozenset({Scope.ADMIN})))
        if settings.api_keys_file is not None:
            keys.extend(_read_keys(settings.api_keys_file))
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, key: str) -> Principal | None:
        """Whose key this is. Compares with all keys in constant time."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        found = None
        for candidate in self._keys:
            if hmac.compare_digest(candidate.sha256, digest):
                found = candidate
        return None if found is None else Principal(found.id, found.scopes)


def _read_keys(path: Path) -> list[ApiKey]:
    variable = "MASAN_API_KEYS_FILE"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(variable, f"= {str(path)!r}: cannot be read: {error}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            keys.append(ApiKey.model_validate(json.loads(line)))
        except ValueError as error:
            raise SettingsError(
                variable, f"= {str(path)!r}: line {number} is no {{id, sha256, scopes}} object"
            ) from error
    return keys


def check_binding(settings: ServiceSettings, key_ring: KeyRing) -> None:
    """Raises SettingsError for a host that others can reach while anybody may ask."""
    if not key_ring and not settings.binds_to_loopback:
        raise SettingsError(
            "MASAN_HOST",
            f"= {settings.host!r}: without API keys the service listens on 127.0.0.1 only; "
            "set MASAN_API_KEY or MASAN_API_KEYS_FILE to listen elsewhere",
        )


def require(scope: Scope) -> params.Depends:
    """A dependency that lets only keys with `scope` pass."""

    def authorize(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
        header: Annotated[str | None, Security(_header)],
    ) -> Principal:
        key_ring: KeyRing = request.app.state.services.key_ring
        if not key_ring:
            return LOCAL
        principal = key_ring.find(bearer.credentials if bearer else header or "")
        if principal is None:
            raise UnauthorizedError(
                "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                headers={"WWW-Authenticate": 'Bearer realm="masan"'},
            )
        if not principal.may(scope):
            raise ForbiddenError(f"The key {principal.key_id} lacks the scope {scope}.")
        return principal

    dependency: params.Depends = Depends(authorize)
    return dependency


def check_origin(request: Request) -> None:
    """Without keys a web page must not reach us through its reader's browser.

    Refuses a foreign `Host` (a name rebound to this machine) and a foreign `Origin`. Raises ForbiddenError.
    """
    services = request.app.state.services
    if services.key_ring:
        return
    settings: ServiceSettings = services.settings
    given = [("Host", f"//{request.headers.get('host', '')}")]
    given += [("Origin", origin) for origin in request.headers.getlist("origin")]
    for header, value in given:
        host = _host_name(value)
        if not is_loopback(host) and host not in settings.allowed_hosts:
            raise ForbiddenError(
                f"{header} {host[:100]!r} is not this machine. Without API keys only loopback names and "
                "MASAN_ALLOWED_HOSTS are answered."
            )


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
