import socket

import pytest

from cli.listening import listen, url_of
from worker.errors import StartupError


def test_any_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            pass
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_all_addresses_are_reached_through_this_machines_own() -> None:
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener).startswith("http://127.0.0.1:")


def test_a_port_in_use_is_named() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(
            StartupError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another with --port"
        ):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_this_machines_is_named(host: str) -> None:
    with pytest.raises(StartupError, match=f"cannot listen on.*{host}"):
        listen(host, 0)
