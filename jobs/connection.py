"""The connection to Redis, the same in the server and in the workers."""

import logging
import ssl
import time
from typing import Any

import redis.asyncio
from redis import Redis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import BusyLoadingError, RedisError
from redis.retry import Retry

from jobs.errors import RedisCertificateError
from jobs.sentinel import follow, follow_async, is_sentinel_url, parse_sentinel_url

logger = logging.getLogger(__name__)

# Long enough for a database that fills the memory of a large machine, from a slow disk.
_LOADING_SECONDS = 3600.0
_LOG_EVERY_SECONDS = 30.0
# One event loop uses them, and gains nothing from more.
_ASYNC_CONNECTIONS = 8


def connect(url: str, timeout_seconds: float = 5.0) -> Redis:
    """Return a client that raises at once when Redis does not answer, instead of retrying.

    A command is never sent twice: when an answer is lost it is not known whether the command took effect, and only the
    caller can tell whether it may be repeated. Idle connections that broke are replaced before they are used.

    :raises ValueError: for a URL that is not `redis://`, `rediss://`, `unix://` or one of `jobs/sentinel.py`, or names
        certificates that cannot be read.
    """
    _check_certificate_files(url)
    options = {**_timeouts(timeout_seconds), "retry": Retry(NoBackoff(), 0)}
    return follow(url, **options) if is_sentinel_url(url) else Redis.from_url(url, **options)


def connect_async(url: str, timeout_seconds: float = 5.0) -> redis.asyncio.Redis:
    """Return a client for an event loop. It connects at its first use; concurrent commands wait for a connection."""
    options = {**_timeouts(timeout_seconds), "retry": AsyncRetry(NoBackoff(), 0)}
    pool_options = {"max_connections": _ASYNC_CONNECTIONS, "timeout": timeout_seconds}
    if is_sentinel_url(url):
        return follow_async(url, pool_options, **options)
    options |= pool_options
    pool: redis.asyncio.BlockingConnectionPool = redis.asyncio.BlockingConnectionPool.from_url(url, **options)
    return redis.asyncio.Redis.from_pool(pool)


def _timeouts(timeout_seconds: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": min(timeout_seconds, 2.0),
        "health_check_interval": 30,
    }


def wait_until_loaded(redis: Redis, timeout_seconds: float = _LOADING_SECONDS) -> None:
    """Wait while Redis loads its data after a start; its answers meanwhile are not an outage.

    :raises BusyLoadingError: when that takes longer.
    :raises RedisError: at once for anything else.
    """
    give_up_at, log_at = time.monotonic() + timeout_seconds, 0.0
    while True:
        try:
            redis.ping()
            return
        except BusyLoadingError:
            now = time.monotonic()
            if now >= give_up_at:
                raise
            if now >= log_at:
                logger.info("Redis is loading its data; waiting for it")
                log_at = now + _LOG_EVERY_SECONDS
        time.sleep(0.1)


def server_time(redis: Redis) -> float:
    """Return the time by Redis's clock, in Unix seconds: the clocks of workers and servers may differ."""
    seconds, microseconds = redis.time()
    return float(seconds + microseconds / 1e6)


def check_certificate(error: RedisError) -> None:
    """Check whether a failed connection is due to the certificate, which is a mistake that no retry repairs.

    :raises RedisCertificateError: when that is why Redis could not be connected to.
    """
    fault = error.__context__
    if isinstance(fault, ssl.SSLCertVerificationError):
        reason = fault.verify_message.rstrip(".")
        raise RedisCertificateError(
            f"the certificate that Redis shows is not accepted: {reason}; FRAMEDIT_REDIS_URL must name the host as the "
            "certificate does, and where the system does not know its CA, the CA's file: rediss://...?ssl_ca_certs=FILE"
        ) from error


def _check_certificate_files(url: str) -> None:
    """Check the files at once: a client would report a failed connection, and callers retry that without end."""
    options = parse_sentinel_url(url).options if is_sentinel_url(url) else parse_url(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, certificate = options.get("ssl_ca_certs"), options.get("ssl_certfile")
    try:
        if authorities:
            context.load_verify_locations(authorities)
        if certificate:
            context.load_cert_chain(certificate, options.get("ssl_keyfile"), options.get("ssl_password", ""))
    except OSError as error:  # OpenSSL's are, too
        names = " or ".join(filter(None, (authorities, certificate, options.get("ssl_keyfile"))))
        raise ValueError(
            f"FRAMEDIT_REDIS_URL names {names}, which cannot be read as certificates and key: {error.strerror}"
        ) from None
