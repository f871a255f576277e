"""The socket that the API listens on, opened before anything else starts, so that a port in use says so at once."""

import socket

from redis import Redis

from jobs.keys import KeyStore
from jobs.settings import Settings, is_loopback
from worker.errors import StartupError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Raises `StartupError` that says what is wrong with the address."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except OSError as error:
        raise StartupError(f"cannot listen on host {host!r}: {error.strerror}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a browser on this machine finds it."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def who_is_served(settings: Settings, has_keys: bool) -> str:
    """In words, for who starts the server."""
    if has_keys:
        return "served is who has an API key"
    if is_loopback(settings.host):
        return "there are no API keys: this machine alone is served"
    return "there are no API keys: everybody who reaches this machine is served"


def check_guarded(settings: Settings, redis: Redis) -> bool:
    """Whether there are API keys.

    Raises `StartupError` when anybody on a network could use the server and nobody has said that this is meant, and
    `RedisError` when Redis does not answer.
    """
    has_keys = KeyStore(redis).exist()
    if not settings.serves_anonymous and not has_keys:
        raise StartupError(
            f"with host {settings.host} everybody who reaches this machine could use the server: make an API key first "
            "(`framedit keys create`), or say FRAMEDIT_ALLOW_ANONYMOUS=true (--allow-anonymous) if that is meant"
        )
    return has_keys
