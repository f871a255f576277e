"""The socket that the API listens on, and the checks of where it may listen.

The socket is opened before anything else starts, so that a port in use is reported at once.
"""

import socket
import ssl

from redis import Redis

from jobs.access.api_keys import KeyStore
from jobs.settings import Settings, is_loopback
from worker.errors import StartupError


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free port. Raises `StartupError` for an address that cannot be used."""
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


def url_of(listener: socket.socket, settings: Settings) -> str:
    """The URL under which a browser on this machine reaches the listener."""
    scheme = "http" if settings.tls_cert is None else "https"
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def who_is_served(settings: Settings, has_keys: bool) -> str:
    """A sentence for the operator: which clients the server accepts."""
    if has_keys:
        return "API keys are required"
    if is_loopback(settings.host):
        return "no API keys exist: clients on this machine are served without one"
    return "no API keys exist: every client that reaches this machine is served"


def check_certificate_files(settings: Settings) -> None:
    """Raise `StartupError` when the files of the TLS settings are no certificate and its key."""
    if settings.tls_cert is None and settings.tls_key is None:
        return
    if settings.tls_cert is None or settings.tls_key is None:
        raise StartupError("FRAMEDIT_TLS_CERT and FRAMEDIT_TLS_KEY go together: set both, or neither for plain HTTP")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as error:  # OpenSSL's errors too
        raise StartupError(
            f"{settings.tls_cert} and {settings.tls_key} cannot be read as certificate and key in PEM: {error.strerror}"
        ) from error


def check_guarded(settings: Settings, redis: Redis) -> bool:
    """Return whether API keys exist.

    Raises `StartupError` for a server on a network that has neither API keys nor `FRAMEDIT_ALLOW_ANONYMOUS`, and
    `RedisError` when Redis does not answer.
    """
    has_keys = KeyStore(redis).exist()
    if not settings.serves_anonymous and not has_keys:
        raise StartupError(
            f"host {settings.host} is reachable from a network and no API keys exist: create an API key first "
            "(`framedit keys create`), or set FRAMEDIT_ALLOW_ANONYMOUS=true (--allow-anonymous) to serve every client"
        )
    return has_keys
