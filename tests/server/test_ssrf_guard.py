"""Where a name may lead. The last step, the connection itself, is recorded: nothing is sent to anybody."""

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import httpcore
import pytest

from server.http.ssrf_guard import ForbiddenAddressError, PublicNetwork, is_public, resolve_name

PUBLIC = "93.184.216.34"

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
    "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
    "64:ff9b:1::5db8:d822",  # local NAT64
    "fec0::1",  # site-local
    "::93.184.216.34",  # IPv4-compatible
    "::ffff:0:93.184.216.34",  # IPv4-translated
    "3fff::1",  # documentation
    "5f00::1",  # segment routing
    "168.63.129.16",  # Azure's host
    "::ffff:168.63.129.16",
    "192.0.0.9",  # IETF protocol assignments
]


class Line(httpcore.AsyncNetworkStream):
    """A connection that notes the name in TLS, and is then no use."""

    def __init__(self, names: list[str | None]) -> None:
        self._names = names

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        self._names.append(server_hostname)
        raise httpcore.ConnectError("no further")

    async def aclose(self) -> None:
        pass


@dataclass
class Recorder(httpcore.AsyncNetworkBackend):
    """Notes where connections go; refuses those to `down`."""

    down: Sequence[str] = ()
    addresses: list[str] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.addresses.append(host)
        if host in self.down:
            raise httpcore.ConnectError("down")
        return Line(self.names)


@dataclass
class Names:
    """A resolver that gives one of `answers` after the other."""

    answers: list[Sequence[str]]
    asked: int = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def post(network: PublicNetwork, url: str = "https://example.com/hook") -> None:
    async def send() -> None:
        async with httpcore.AsyncConnectionPool(network_backend=network) as pool:
            await pool.request("POST", url, content=b"{}")

    asyncio.run(send())


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_never_connected_to(address: str) -> None:
    recorder = Recorder()
    assert not is_public(address)
    # One bad address among good ones is enough.
    network = PublicNetwork(resolve=Names([[PUBLIC, address]]), inner=recorder)
    with pytest.raises(ForbiddenAddressError, match="not a public address"):
        post(network)
    assert recorder.addresses == []


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:8.8.8.8"])
def test_a_public_address_is(address: str) -> None:
    assert is_public(address)


def test_the_checked_address_is_connected_to_and_tls_keeps_the_name() -> None:
    recorder = Recorder()
    # The name changes its mind: what it says after the check is never asked.
    names = Names([[PUBLIC], ["127.0.0.1"]])
    with pytest.raises(httpcore.ConnectError, match="no further"):
        post(PublicNetwork(resolve=names, inner=recorder))
    assert (recorder.addresses, recorder.names, names.asked) == ([PUBLIC], ["example.com"], 1)


def test_the_next_address_is_tried_when_one_is_down() -> None:
    recorder = Recorder(down=["8.8.8.8"])
    with pytest.raises(httpcore.ConnectError, match="no further"):
        post(PublicNetwork(resolve=Names([["8.8.8.8", PUBLIC]]), inner=recorder))
    assert recorder.addresses == ["8.8.8.8", PUBLIC]


def test_private_addresses_are_allowed_where_the_settings_say_so() -> None:
    recorder = Recorder()
    with pytest.raises(httpcore.ConnectError, match="no further"):
        post(PublicNetwork(True, Names([["127.0.0.1"]]), recorder))
    assert recorder.addresses == ["127.0.0.1"]


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "2130706433", "0x7f.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_this_machine_cannot_be_reached_by_any_of_its_names(host: str) -> None:
    with pytest.raises(httpcore.ConnectError):
        post(PublicNetwork(), f"http://{host}:9/hook")


def test_a_name_that_there_is_not_cannot_be_connected_to() -> None:
    with pytest.raises(httpcore.ConnectError, match="cannot be resolved"):
        asyncio.run(resolve_name("nowhere.invalid", 443))


def test_a_unix_socket_is_none_of_it() -> None:
    with pytest.raises(ForbiddenAddressError):
        asyncio.run(PublicNetwork(allow_private=True).connect_unix_socket("/tmp/x"))
