"""Where a webhook may go. Literal addresses and a made-up resolver: no network is needed."""

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from worker.contract.webhook_target import (
    Networks,
    TargetRefusedError,
    TargetUnresolvedError,
    is_public,
    parse_networks,
    resolve_target,
)

LOOPBACK: Networks = parse_networks("127.0.0.0/8, ::1/128")


def answers(*addresses: str) -> Any:
    """A resolver that gives these addresses for any name."""

    def lookup(_host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return lookup


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104 - refused, not bound
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::a00:1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(TargetRefusedError, match="is not a public address"):
        resolve_target("https://hooks.test/", lookup=answers("8.8.8.8", address))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001::8a"])
def test_public_addresses_are_taken(address: str) -> None:
    target = resolve_target("https://hooks.test/in?a=b", lookup=answers(address, address))

    assert (target.addresses, target.port, target.path) == ((address,), 443, "/in?a=b")
    assert target.host_header == "hooks.test"


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://localhost/",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
def test_other_spellings_of_this_machine_are_refused(url: str) -> None:
    with pytest.raises((TargetRefusedError, TargetUnresolvedError)):
        resolve_target(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://8.8.8.8/", "must be https"),
        ("ftp://8.8.8.8/", "must be https"),
        ("file:///etc/passwd", "must be https"),
        ("//8.8.8.8/", "must be https"),
        ("8.8.8.8", "must be https"),
        ("", "must be https"),
        ("https:///path", "names no host"),
        ("https://user:word@8.8.8.8/", "no user"),
        ("https://8.8.8.8#@127.0.0.1/", "no fragment"),
        ("https://8.8.8.8:0/", "no port 0"),
        ("https://8.8.8.8:65536/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://8.8.8.8/a b", "no spaces"),
        ("https://8.8.8.8/\r\nHost: x", "printable ASCII"),
        ("https://b\u00fccher.test/", "printable ASCII"),
        ("https://8.8.8.8/" + "a" * 2_048, "at most 2048"),
    ],
)
def test_urls_that_are_not_sent_to(url: str, reason: str) -> None:
    with pytest.raises(TargetRefusedError, match=reason):
        resolve_target(url)


def test_http_reaches_listed_loopback_alone() -> None:
    assert resolve_target("http://127.0.0.1:8080/x", LOOPBACK).host_header == "127.0.0.1:8080"
    assert resolve_target("http://[::1]:81/", LOOPBACK).host_header == "[::1]:81"
    private = parse_networks("10.0.0.0/8")
    assert resolve_target("https://10.1.2.3/", private).addresses == ("10.1.2.3",)
    for url, networks in (("http://10.1.2.3/", private), ("http://127.0.0.1/", private)):
        with pytest.raises(TargetRefusedError):
            resolve_target(url, networks)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "nobody.invalid"])
def test_a_name_without_an_address_is_told_apart(host: str) -> None:
    def nothing(host: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        host.encode("idna")
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(TargetUnresolvedError, match="does not resolve"):
        resolve_target(f"https://{host}/", lookup=nothing)


@pytest.mark.parametrize("text", ["localhost", "127.0.0.1/8", "127.0.0.0/33", '["127.0.0.0/8"]'])
def test_networks_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|has host bits"):
        parse_networks(text)


def test_what_is_logged_of_a_target_has_no_path() -> None:
    assert "token" not in repr(resolve_target("https://8.8.8.8/token?token=1"))
