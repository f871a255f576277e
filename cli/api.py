"""`framedit server`: the API under uvicorn."""

import gc
import logging
import signal
import socket

import uvicorn
from redis.exceptions import RedisError

from cli.listening import check_guarded, listen, url_of, who_is_served
from jobs.connection import check_certificate, connect
from jobs.settings import Settings
from server.app import create_app

logger = logging.getLogger(__name__)

_GOODBYE_SECONDS = 5
# Longer than the longest pause that a waiting client is told to make: it need not connect anew each time.
_KEEP_ALIVE_SECONDS = 30


class ApiServer(uvicorn.Server):
    """Ends the open event streams when it is asked to stop: they would keep it until its patience is over."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.config.app.state.services.events.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def run_server(settings: Settings, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, on the listening socket `fd` where one is inherited.

    Raises `ValueError` when there is no Redis server to use, `RedisCertificateError` when its certificate is not
    accepted, `StartupError` when the address cannot be listened on, or may not be without API keys.
    """
    app = create_app(settings)
    _look_at_redis(settings)
    listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
    # uvicorn sends itself the signal again once it has shut down: the end is then a status, not a signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    if fd is None:
        logger.info("listening on %s", url_of(listener))
    # What is here by now stays. Looking through it for garbage again and again stops all answers for up to 0.1 s.
    gc.collect()
    gc.freeze()
    ApiServer(config).run(sockets=[listener])


def _look_at_redis(settings: Settings) -> None:
    """Find out now what would keep this server from ever serving; that Redis is away does not."""
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            has_keys = check_guarded(settings, redis)
        logger.info("%s", who_is_served(settings, has_keys))
    except RedisError as error:
        check_certificate(error)
        # Whether there are API keys is asked again for every request, and without Redis nobody is served.
        logger.warning("Redis is away; nothing is served before it is back: %s", error)
