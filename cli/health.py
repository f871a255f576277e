"""`framedit health`: whether the server or the worker in this container is well, for its health check."""

import http.client
import socket

from redis.exceptions import RedisError

from jobs.cards import known_models, workers_alive
from jobs.connection import connect
from jobs.errors import FrameditError
from jobs.settings import Settings

_TIMEOUT_SECONDS = 5.0


class UnwellError(FrameditError):
    """The process that was asked about cannot do its work; the message says what is known of it."""

    code = "unwell"
    exit_status = 1


def check_server(settings: Settings) -> None:
    """Raises `UnwellError` unless the server of these settings answers on this machine that it is ready."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise UnwellError(f"the server is not ready: {answer.read(1000).decode(errors='replace')}")
    except (OSError, http.client.HTTPException) as error:
        raise UnwellError(f"the server on {host}:{settings.port} does not answer: {error}") from error
    finally:
        connection.close()


def check_worker(settings: Settings) -> None:
    """Raises `UnwellError` unless a worker of this machine (by its host name) has announced itself within its time."""
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, _TIMEOUT_SECONDS) as redis:
            names = {name for model in known_models(redis) for name in workers_alive(redis, model)}
    except RedisError as error:
        raise UnwellError(f"Redis does not answer: {error}") from error
    if not any(name.startswith(f"{socket.gethostname()}-") for name in names):
        raise UnwellError(f"no worker of {socket.gethostname()} is alive; alive are: {', '.join(sorted(names)) or '-'}")
