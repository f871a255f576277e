import socket

import pytest
from redis import Redis

from cli.processes.listener import check_guarded, listen, url_of, who_is_served
from jobs.access.api_keys import KeyStore
from jobs.settings import Settings
from worker.errors import StartupError


def test_any_free_port() -> None:
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            pass
        assert url_of(listener, Settings()) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_all_addresses_are_reached_through_this_machines_own() -> None:
    with listen("0.0.0.0", 0) as listener:
        assert url_of(listener, Settings()).startswith("http://127.0.0.1:")


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


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_a_network_needs_keys_or_the_word_of_its_owner(redis: Redis, host: str, alone: bool) -> None:
    settings = Settings(host=host)
    if alone:
        assert not check_guarded(settings, redis)
        assert "on this machine" in who_is_served(settings, False)
        return
    with pytest.raises(StartupError, match="create an API key first"):
        check_guarded(settings, redis)
    everybodys = Settings(host=host, allow_anonymous=True)
    assert not check_guarded(everybodys, redis)
    assert "every client that reaches" in who_is_served(everybodys, False)
    KeyStore(redis).create()
    assert check_guarded(settings, redis)
    assert "API keys are required" in who_is_served(settings, True)
