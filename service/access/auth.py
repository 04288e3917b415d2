"""Who may ask: the bearer of an API key. Without any key, this machine alone.

Source: RFC 6750 for `Authorization: Bearer`.
"""

from functools import lru_cache
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request, Security, params
from fastapi.concurrency import run_in_threadpool
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import HTTPConnection
from starlette.types import Scope as ASGIScope

from service.access.api_keys import Scope
from service.access.key_ring import LOCAL, KeyRing, Principal, tenant_of
from service.access.rate_limits import limits_requests
from service.errors import ForbiddenError, SettingsError, UnauthorizedError
from service.settings import ServiceSettings, is_loopback

__all__ = [
    "PUBLIC_PATHS",
    "Principal",
    "PrincipalDep",
    "Scope",
    "authenticate",
    "check_binding",
    "check_origin",
    "principal_of",
    "require",
    "tenant_of",
]

PUBLIC_PATHS: Final = frozenset({"/livez", "/readyz", "/startupz", "/health", "/metrics"})
"""What needs no key. Every other route does, also one that asks for no scope."""


class _Bearer(HTTPBearer):
    """For the document: `authenticate` has read the key by then."""

    async def __call__(self, request: HTTPConnection) -> None:  # noqa: ARG002  # as FastAPI calls it
        return None


class _KeyHeader(APIKeyHeader):
    """As _Bearer."""

    async def __call__(self, request: HTTPConnection) -> None:  # noqa: ARG002  # as FastAPI calls it
        return None


_bearer = _Bearer(scheme_name="HTTPBearer", auto_error=False, description="An API key")
_header = _KeyHeader(name="X-API-Key", scheme_name="APIKeyHeader", auto_error=False, description="An API key")


def check_binding(settings: ServiceSettings, key_ring: KeyRing) -> None:
    """Raises SettingsError for a host that others can reach while anybody may ask."""
    if not key_ring and not settings.binds_to_loopback:
        raise SettingsError(
            "MASAN_HOST",
            f"= {settings.host!r}: without API keys the service listens on 127.0.0.1 only; "
            "set MASAN_API_KEY or MASAN_API_KEYS_FILE to listen elsewhere",
        )


async def authenticate(request: Request) -> None:
    """The first dependency of every route: who asks is known before anything else is looked at.

    Raises UnauthorizedError, RateLimitedError.
    """
    if request.scope["path"] in PUBLIC_PATHS:
        return
    services = request.app.state.services
    if not services.key_ring:
        request.state.principal = LOCAL
        return
    scheme, bearer = get_authorization_scheme_param(request.headers.get("authorization"))
    key = bearer if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
    principal = services.key_ring.find(key, services.clock())
    if principal is None:
        raise UnauthorizedError(
            "Send an API key as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
            headers={"WWW-Authenticate": 'Bearer realm="masan"'},
        )
    if limits_requests(principal):
        await run_in_threadpool(services.limits.pass_request, principal, services.clock())
    request.state.principal = principal


def principal_of(request: Request) -> Principal:
    """Who sent the request, as `authenticate` found."""
    principal: Principal = request.state.principal
    return principal


async def _principal(request: Request) -> Principal:
    """Not a plain function: FastAPI would call that in another thread."""
    return principal_of(request)


PrincipalDep = Annotated[Principal, Depends(_principal)]


def require(scope: Scope) -> params.Depends:
    """A dependency that lets only keys with `scope` pass; also to be had as a parameter, the principal."""

    async def authorize(
        request: Request,
        _bearer: Annotated[None, Security(_bearer)],
        _header: Annotated[None, Security(_header)],
    ) -> Principal:
        principal = principal_of(request)
        if not principal.may(scope):
            raise ForbiddenError(f"The key {principal.key_id} lacks the scope {scope}.")
        return principal

    dependency: params.Depends = Depends(authorize)
    return dependency


JobReaderDep = Annotated[Principal, require(Scope.JOBS_READ)]
JobWriterDep = Annotated[Principal, require(Scope.JOBS_WRITE)]


def check_origin(scope: ASGIScope) -> None:
    """Without keys a web page must not reach us through its reader's browser.

    Refuses a foreign `Host` (a name rebound to this machine) and a foreign `Origin`. Raises ForbiddenError.
    """
    services = scope["app"].state.services
    if services.key_ring:
        return
    settings: ServiceSettings = services.settings
    host, origins = None, []
    for name, value in scope["headers"]:
        if name == b"host" and host is None:
            host = value
        elif name == b"origin":
            origins.append(value)
    _check_host("Host", b"//" + (host or b""), settings)
    for origin in origins:
        _check_host("Origin", origin, settings)


def _check_host(header: str, url: bytes, settings: ServiceSettings) -> None:
    host, is_here = _host_of(url)
    if not is_here and host not in settings.allowed_hosts:
        raise ForbiddenError(
            f"{header} {host[:100]!r} is not this machine. Without API keys only loopback names and "
            "MASAN_ALLOWED_HOSTS are answered."
        )


@lru_cache(maxsize=256)
def _host_of(url: bytes) -> tuple[str, bool]:
    """Its name, and whether that means this machine."""
    try:
        host = urlsplit(url.decode("latin-1")).hostname or ""
    except ValueError:
        host = ""
    return host, is_loopback(host)
