"""Where HTTP clients may connect to: hosts by name, addresses by what they are, each looked at once."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from heddle.http.guard import (
    RESOLVED_FOR_S,
    ForbiddenAddressError,
    ForbiddenHostError,
    Guard,
    is_loopback,
    why_forbidden,
)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("93.184.216.34", ""),
        ("10.1.2.3", ""),
        ("192.168.0.9", ""),
        ("2606:2800:220:1::1", ""),
        ("fd12:3456::1", ""),
        ("127.0.0.1", "loopback"),
        ("127.8.9.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("169.254.170.2", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("fe80::1", "link-local"),
        ("fd00:ec2::254", "a metadata service"),
        ("168.63.129.16", "a metadata service"),
        ("100.100.100.200", "a metadata service"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
    ],
)
def test_addresses_are_told_apart_by_what_they_are(address: str, why: str) -> None:
    assert why_forbidden(ipaddress.ip_address(address), loopback=False) == why


def test_loopback_is_for_those_that_name_it() -> None:
    assert why_forbidden(ipaddress.ip_address("127.0.0.1"), loopback=True) == ""
    assert [is_loopback(host) for host in ("localhost", "127.0.0.1", "::1", "10.0.0.1", "api.example.com")] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1",
        "https://api.example.com.evil.example/",
        "https://169.254.169.254/latest",
        "https://user:password@api.example.com/",
        "ftp://api.example.com/",
        "https:///v1",
    ],
)
def test_urls_at_other_hosts_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(ForbiddenHostError) as refused:
        Guard(["api.example.com"]).check(httpx2.URL(url))
    assert "evil" not in str(refused.value)


def test_a_host_is_known_in_any_case() -> None:
    Guard(["API.example.com"]).check(httpx2.URL("https://api.Example.com/v1"))


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Makes names resolve to addresses; returns the list of names that were asked for."""
    asked: list[str] = []

    def to(*addresses: str) -> list[str]:
        def answer(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
            asked.append(host)
            if not addresses:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", answer)
        return asked

    return to


def test_a_name_is_resolved_once_and_only_what_may_be_connected_to_is_used(resolves: Callable[..., list[str]]) -> None:
    asked = resolves("169.254.169.254", "10.0.0.7", "10.0.0.8", "10.0.0.7")
    guard = Guard(["api.example.com"])

    async def twice() -> list[list[str]]:
        return [await guard.addresses("api.example.com", 443) for _ in range(2)]

    assert asyncio.run(twice()) == [["10.0.0.7", "10.0.0.8"]] * 2
    assert asked == ["api.example.com"]
    guard.forget("api.example.com", 443)
    asyncio.run(twice())
    assert len(asked) == 2


def test_a_name_that_resolves_inside_later_on_is_refused_then(
    resolves: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("heddle.http.guard.time", SimpleNamespace(monotonic=lambda: now[0]))
    guard = Guard(["api.example.com"])
    resolves("10.0.0.7")
    assert asyncio.run(guard.addresses("api.example.com", 443)) == ["10.0.0.7"]
    resolves("169.254.169.254")
    now[0] += RESOLVED_FOR_S - 1
    assert asyncio.run(guard.addresses("api.example.com", 443)) == ["10.0.0.7"]
    now[0] += 1
    with pytest.raises(ForbiddenAddressError):
        asyncio.run(guard.addresses("api.example.com", 443))


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fe80::1%eth0"])
def test_a_declared_name_that_resolves_inside_stops_the_sink(resolves: Callable[..., list[str]], address: str) -> None:
    resolves(address)
    with pytest.raises(ForbiddenAddressError, match=r"api\.example\.com resolves to"):
        asyncio.run(Guard(["api.example.com"]).addresses("api.example.com", 443))


def test_a_name_that_nobody_knows_is_a_connection_that_failed(resolves: Callable[..., list[str]]) -> None:
    resolves()
    with pytest.raises(httpx2.ConnectError):
        asyncio.run(Guard(["api.example.com"]).addresses("api.example.com", 443))
