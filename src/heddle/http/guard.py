"""Where a client may connect to: hosts that were declared, at addresses that were looked at.

A URL in which data has a part can point at a cloud's metadata service or at a database on this machine, and so can a
name whose owner changes what it resolves to between a check and the connection. So names are checked, resolved once,
and the connection goes to an address that was checked; TLS and the Host header still go by the name. Redirects are not
followed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable

import httpx2

from heddle.errors import ContractError, UsageError

RESOLVED_FOR_S = 30.0
"""How long an address is used before the name is resolved again."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK_NAMES = ("localhost",)
# Beside the link-local ones (169.254.169.254 and fe80::/10): AWS over IPv6, Azure, Alibaba, Oracle's older one.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "168.63.129.16", "100.100.100.200", "192.0.0.192"))
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenHostError(ContractError):
    """A URL whose host was not declared."""

    code = "forbidden-host"


class ForbiddenAddressError(UsageError):
    """A declared host that resolves to addresses where no API of a vendor is."""

    code = "forbidden-address"


def is_loopback(host: str) -> bool:
    """Whether a URL says by itself that it means this machine."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def why_forbidden(address: Address, *, loopback: bool) -> str:
    """Empty for an address that may be connected to. Private networks may: that is where a company's own APIs are."""
    seen = _unwrapped(address)
    if seen.is_loopback:
        return "" if loopback else "loopback"
    if seen in _METADATA:
        return "a metadata service"
    if seen.is_link_local:
        return "link-local"
    if seen.is_unspecified:
        return "unspecified"
    if seen.is_multicast:
        return "multicast"
    return "reserved" if seen.is_reserved else ""


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Guard:
    """`hosts`: those that were declared, as in a URL. Loopback is let through for those that name it themselves."""

    def __init__(self, hosts: Iterable[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}

    def check(self, url: httpx2.URL) -> None:
        """Raises `ForbiddenHostError`. The host, which may come from data, is not repeated."""
        if url.scheme not in ("https", "http") or url.host.lower() not in self._hosts:
            raise ForbiddenHostError(
                "the URL of a call is not at a declared host", hint="add the host to hosts= if it is meant to be called"
            )
        if url.userinfo:
            raise ForbiddenHostError("the URL of a call holds credentials")

    async def addresses(self, host: str, port: int) -> list[str]:
        """Those that may be connected to, in the resolver's order. Raises `ForbiddenAddressError` if there are only
        others, `httpx2.ConnectError` if there are none."""
        known = self._known.get((host, port))
        if known is not None and time.monotonic() < known[0]:
            return known[1]
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpx2.ConnectError("the host's name does not resolve") from error
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        reasons = {
            address: why_forbidden(ipaddress.ip_address(address.partition("%")[0]), loopback=is_loopback(host))
            for address in addresses
        }
        allowed = [address for address in addresses if not reasons[address]]
        if not allowed:
            kinds = ", ".join(sorted(set(reasons.values())))
            raise ForbiddenAddressError(
                f"{host} resolves to {kinds} addresses only, to which no client connects",
                hint="see who answers for that name; a service on this machine is declared as http://localhost:PORT",
            )
        self._known[host, port] = time.monotonic() + RESOLVED_FOR_S, allowed
        return allowed

    def forget(self, host: str, port: int) -> None:
        """Nobody was there: the name is resolved anew at the next call."""
        self._known.pop((host, port), None)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Connects as its guard allows. Each host has connections of its own: none is used for another name."""

    def __init__(self, guard: Guard, context: ssl.SSLContext, max_connections: int) -> None:
        self._guard = guard
        self._context = context
        self._limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
        self._transports: dict[str, httpx2.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        self._guard.check(url)
        port = url.port or (443 if url.scheme == "https" else 80)
        transport = self._transport_of(url.host)
        failed: httpx2.TransportError | None = None
        for address in await self._guard.addresses(url.host, port):
            try:
                return await transport.handle_async_request(_pinned(request, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failed = error  # nothing was sent: the next address may be tried
        assert failed is not None
        self._guard.forget(url.host, port)
        raise failed

    def _transport_of(self, host: str) -> httpx2.AsyncHTTPTransport:
        transport = self._transports.get(host)
        if transport is None:
            transport = httpx2.AsyncHTTPTransport(verify=self._context, trust_env=False, limits=self._limits)
            self._transports[host] = transport
        return transport

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


def _pinned(request: httpx2.Request, address: str) -> httpx2.Request:
    """The same request to an address; name for TLS and Host header stay."""
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.host},
    )
