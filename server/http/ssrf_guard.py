"""Connections to public addresses only, for URLs that clients choose.

A name is resolved once, all its addresses are checked, and the connection is made to a checked address: an answer of
the DNS that changes a moment later has no effect. TLS and the Host header still use the name.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from urllib.parse import SplitResult, urlsplit

import httpcore

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_VISIBLE = re.compile(r"[!-~]+")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Not of the public internet, though Python's `is_global` says so in some of its versions.
_NOT_PUBLIC = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's host, which hands out settings and certificates of the machine
        "192.0.0.0/24",  # IETF protocol assignments
        "::/96",  # IPv4-compatible
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b:1::/48",  # local NAT64
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local
    )
]


class ForbiddenAddressError(httpcore.ConnectError):
    """A name resolves to an address that clients must not make the server connect to."""


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """For `httpcore.AsyncConnectionPool`. With `allow_private` every address is allowed."""

    def __init__(
        self,
        allow_private: bool = False,
        resolve: Resolve | None = None,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._resolve = resolve or resolve_name
        self._inner = inner or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        if not self._allow_private:
            for address in addresses:
                _check(host, address)
        return await self._connect_to_first(addresses, port, timeout, local_address, socket_options)

    async def _connect_to_first(
        self,
        addresses: Sequence[str],
        port: int,
        timeout: float | None,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        for address in addresses[:-1]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise ForbiddenAddressError("a URL of a client leads to no unix socket")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Return all addresses of a name, at least one. Raises `httpcore.ConnectError` when it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def split_url(url: str) -> SplitResult | None:
    """Return the parts of an http or https URL in ASCII, with a host and without user name; None for any other."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    plain = _VISIBLE.fullmatch(url) is not None and "\\" not in url and "@" not in parts.netloc
    return parts if usable and plain else None


def is_public(address: str) -> bool:
    """Return whether an IP address, and each IPv4 address that an IPv6 address embeds, is on the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return all(_is_public(part) for part in (ip, *_embedded(ip)))


def _is_public(ip: Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


def _embedded(ip: Address) -> Iterable[ipaddress.IPv4Address]:
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    found = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [part for part in found if part is not None]


def _check(host: str, address: str) -> None:
    if not is_public(address):
        raise ForbiddenAddressError(f"{host} resolves to {address}, which is not a public address")
