"""Where a webhook may go: public addresses over https, and what the operator allows besides.

A name is resolved once for each attempt, all its addresses are checked, and the connection goes to one of
those: a name that means something else a moment later (DNS rebinding) leads nowhere new.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final
from urllib.parse import urlsplit

MAX_URL_LENGTH: Final = 2_048
_PORTS: Final = {"https": 443, "http": 80}
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_SIX_TO_FOUR: Final = ip_network("2002::/16")
"""Carries an IPv4 address, which may be a private one."""

Network = IPv4Network | IPv6Network
Networks = tuple[Network, ...]
Lookup = Callable[..., list[tuple[Any, ...]]]
"""As `socket.getaddrinfo`."""


class TargetError(Exception):
    """A webhook cannot go there; the message completes "webhook.url ..." and shows no path or query."""


class TargetRefusedError(TargetError):
    """The URL is not one that we send to, now or later."""


class TargetUnresolvedError(TargetError):
    """The name has no address at the moment."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked destination. addresses: where to connect, in order. path: with its query."""

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)
    addresses: tuple[str, ...]

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_networks(value: Any) -> Any:
    """Networks of a comma-separated list, such as `127.0.0.0/8,fd00::/8`. Raises ValueError."""
    if not isinstance(value, str):
        return value
    return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())


def resolve_target(url: str, allowed: Networks = (), lookup: Lookup | None = None) -> Target:
    """Look the URL's host up and check all of its addresses. Blocks for as long as the resolver takes.

    allowed: networks that may be reached although they are not public; to loopback addresses of theirs, http
    is allowed too. Raises TargetRefusedError, TargetUnresolvedError.
    """
    scheme, host, port, path = _parts(url)
    addresses = _addresses(host, port, lookup or socket.getaddrinfo)
    for address in addresses:
        is_listed = any(address in network for network in allowed)
        if not is_listed and not is_public(address):
            raise TargetRefusedError(f"{host[:100]!r} is not a public address")
        if scheme == "http" and not (is_listed and address.is_loopback):
            raise TargetRefusedError("must be https")
    return Target(scheme, host, port, path, tuple(str(address) for address in addresses))


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether anybody on the internet could reach it. IPv6 that carries an IPv4 address is not."""
    if isinstance(address, IPv6Address):
        if address not in _GLOBAL_UNICAST or address in _SIX_TO_FOUR:
            return False
    elif address.is_reserved or address.is_multicast:
        return False
    return address.is_global


def _parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port, path with query."""
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        raise TargetRefusedError(f"must be at most {MAX_URL_LENGTH} printable ASCII characters, no spaces")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise TargetRefusedError(f"is no URL: {error}") from error
    if parts.scheme not in _PORTS:
        raise TargetRefusedError("must be https")
    if not parts.hostname:
        raise TargetRefusedError("names no host")
    if parts.username is not None or parts.password is not None:
        raise TargetRefusedError("must hold no user and no password")
    if parts.fragment or port == 0:
        raise TargetRefusedError("must have no fragment, and no port 0")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path


def _addresses(host: str, port: int, lookup: Lookup) -> list[IPv4Address | IPv6Address]:
    try:
        rows = lookup(host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(row[4][0]) for row in rows]
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that no name may have
        raise TargetUnresolvedError(f"{host[:100]!r} does not resolve") from error
    if not addresses:
        raise TargetUnresolvedError(f"{host[:100]!r} does not resolve")
    return list(dict.fromkeys(addresses))
