"""`framedit server`: the API under uvicorn."""

import asyncio
import gc
import logging
import resource
import signal
import socket
from functools import partial
from typing import Any

import uvicorn
from redis.exceptions import RedisError

from cli.processes.listener import check_certificate_files, check_guarded, listen, url_of, who_is_served
from jobs.connection import check_certificate, connect
from jobs.settings import Settings
from server.app import create_app
from server.http.connections import ConnectionLimits, Connections
from server.http.http_protocol import LimitedHttpProtocol

logger = logging.getLogger(__name__)

_SHUTDOWN_SECONDS = 5
# Longer than the longest pause that `openai-poll-after-ms` asks for: a polling client keeps its connection.
_KEEP_ALIVE_SECONDS = 30
_HANDSHAKE_SECONDS = 10.0
_SWEEP_EVERY_TICKS = 10  # of uvicorn, which are 0.1 s
_MAX_DESCRIPTORS = 65_536
# For Redis, the artifact store, webhooks and the files that are being sent.
_OWN_DESCRIPTORS = 200


class ApiServer(uvicorn.Server):
    """uvicorn with limits on its connections, which closes open event streams before it waits for requests to end."""

    def __init__(self, settings: Settings, limits: ConnectionLimits | None = None, **options: Any) -> None:
        self._app = create_app(settings)
        limits = limits or ConnectionLimits(max_connections=_max_connections(settings))
        self._client_connections = Connections(limits)
        config = uvicorn.Config(
            self._app,
            http=partial(LimitedHttpProtocol, self._client_connections),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing that a client sends decides its address or the scheme of the request.
            proxy_headers=False,
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            **options,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl:
            # A connection meets the limits of its protocol only after the handshake.
            loop = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=_HANDSHAKE_SECONDS)  # type: ignore[method-assign]
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP_EVERY_TICKS == 0:
            self._client_connections.sweep(asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.services.events.close()
        await super().shutdown(sockets)


def run_server(settings: Settings, fd: int | None = None) -> None:
    """Serve until SIGTERM or SIGINT, on the listening socket `fd` where one is inherited.

    Raises `ValueError` when there is no Redis server to use, `RedisCertificateError` when its certificate is not
    accepted, `StartupError` when the address cannot be listened on, or may not be without API keys.
    """
    raise_descriptor_limit()
    check_certificate_files(settings)
    server = ApiServer(settings)
    _check_redis(settings)
    listener = listen(settings.host, settings.port) if fd is None else socket.socket(fileno=fd)
    # uvicorn sends itself the signal again once it has shut down: the process then ends with a status, not a signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    if fd is None:
        logger.info("listening on %s", url_of(listener, settings))
    # Objects that exist by now stay. A full garbage collection over them would stop all answers for up to 0.1 s.
    gc.collect()
    gc.freeze()
    server.run(sockets=[listener])


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors: the usual 1024 is too few for clients and their event streams."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _max_connections(settings: Settings) -> int:
    """The setting, as far as the limit of descriptors leaves room for the server's own."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = settings.max_connections if soft == resource.RLIM_INFINITY else max(1, soft - _OWN_DESCRIPTORS)
    if allowed < settings.max_connections:
        logger.warning(
            "the limit of %d open descriptors allows %d connections, not %d: raise it with `ulimit -n`",
            soft,
            allowed,
            settings.max_connections,
        )
    return min(settings.max_connections, allowed)


def _check_redis(settings: Settings) -> None:
    """Report at the start what would keep this server from ever serving; an outage of Redis does not."""
    assert settings.redis_url is not None
    try:
        with connect(settings.redis_url, settings.redis_timeout_seconds) as redis:
            has_keys = check_guarded(settings, redis)
        logger.info("%s", who_is_served(settings, has_keys))
    except RedisError as error:
        check_certificate(error)
        # Every request checks for API keys itself, and without Redis none is served.
        logger.warning("Redis is unavailable, requests are answered with 503 until it is back: %s", error)
