"""Health checks of the server and the worker of this machine or container."""

import http.client
import socket

from redis.exceptions import RedisError

from jobs.cards import known_models, workers_alive
from jobs.connection import connect
from jobs.errors import FrameditError
from jobs.settings import Settings

_TIMEOUT_SECONDS = 5.0


class UnhealthyError(FrameditError):
    """The process cannot do its work; the message gives the reason."""

    code = "unwell"
    exit_status = 1


def check_server(settings: Settings) -> None:
    """Raise `UnhealthyError` unless the server on this machine reports that it is ready."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    connection = http.client.HTTPConnection(host, settings.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise UnhealthyError(f"the server is not ready: {answer.read(1000).decode(errors='replace')}")
    except (OSError, http.client.HTTPException) as error:
        raise UnhealthyError(f"the server on {host}:{settings.port} does not answer: {error}") from error
    finally:
        connection.close()


def check_worker(settings: Settings) -> None:
    """Raise `UnhealthyError` unless a worker of this machine, by its host name, has sent a recent heartbeat."""
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, _TIMEOUT_SECONDS) as redis:
            names = {name for model in known_models(redis) for name in workers_alive(redis, model)}
    except RedisError as error:
        raise UnhealthyError(f"Redis does not answer: {error}") from error
    host = socket.gethostname()
    if not any(name.startswith(f"{host}-") for name in names):
        raise UnhealthyError(f"no worker of {host} is alive; alive workers: {', '.join(sorted(names)) or 'none'}")
