"""Download the file of an `image_url`, from addresses that the network allows, without redirects."""

import asyncio
import functools
import ssl
import threading

import httpcore

from jobs.errors import InvalidRequestError, OverloadedError
from server.http.ssrf_guard import split_url

# Each takes a thread of the routes and holds a file in memory. Slow hosts must leave threads for other requests.
MAX_DOWNLOADS = 8

_SLOTS = threading.BoundedSemaphore(MAX_DOWNLOADS)
_RETRY_AFTER_SECONDS = 2
_HTTP_OK = 200
# Reading the certificates of all CAs takes 50 ms.
_ssl_context = functools.cache(ssl.create_default_context)


def download(
    param: str, url: str, network: httpcore.AsyncNetworkBackend, max_bytes: int, timeout_seconds: float
) -> bytes:
    """Return the file. `param` is the request field that errors name.

    :raises InvalidRequestError: when it cannot be read, or is too large.
    :raises OverloadedError: when as many files are downloaded as may be at a time.
    """
    if split_url(url) is None:
        raise InvalidRequestError(
            f"{param} has an image_url that is not http://host/path or https://host/path, in ASCII and without user "
            "name; encode other characters with %, or upload the file",
            param,
        )
    if not _SLOTS.acquire(blocking=False):
        raise OverloadedError("the server is downloading other files", _RETRY_AFTER_SECONDS)
    try:
        return asyncio.run(asyncio.wait_for(_get(param, url, network, max_bytes), timeout_seconds))
    except TimeoutError:
        fault = f"takes longer than {timeout_seconds:g} s to download"
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        fault = "cannot be downloaded: its host must have a public address and answer over HTTP"
    finally:
        _SLOTS.release()
    raise InvalidRequestError(f"{param} has an image_url that {fault}; upload the file instead", param)


async def _get(param: str, url: str, network: httpcore.AsyncNetworkBackend, max_bytes: int) -> bytes:
    # Redirects are not followed: the pool sends one request and returns its response.
    pool = httpcore.AsyncConnectionPool(ssl_context=_ssl_context(), network_backend=network)
    content = bytearray()
    async with pool, pool.stream("GET", url, headers={"Accept": "image/*, video/*"}) as response:
        if response.status != _HTTP_OK:
            raise InvalidRequestError(
                f"{param} has an image_url that answers {response.status}; it must answer {_HTTP_OK}", param
            )
        async for part in response.aiter_stream():
            content += part
            if len(content) > max_bytes:
                raise InvalidRequestError(
                    f"{param} has an image_url with more than {max_bytes} bytes, the most that is allowed", param
                )
    return bytes(content)
