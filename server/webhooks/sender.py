"""Sends signed webhooks when videos end, as https://www.standardwebhooks.com specifies.

The API sends them, not the worker: it can reach the outside, and a slow receiver must not hold a device. Several API
processes share the work. Each webhook is sent in a task of its own; receivers and owners have a limited number of
webhooks in progress, so that a slow one delays no other. `jobs/videos/webhook_schedule.py` decides when one that was
not received is sent again.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress

import httpcore
from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from jobs.access.webhook_secrets import WebhookSecrets
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from jobs.videos.webhook_schedule import Due, Webhooks
from server.dependencies import Services
from server.http.ssrf_guard import PublicNetwork
from server.objects.video import to_videos

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_REDIS_RETRY_SECONDS = 5.0
_SEND_TIMEOUT_SECONDS = 15.0
_MAX_SENDING = 128
_MAX_SENDING_PER_OWNER = 32
_MAX_SENDING_PER_RECEIVER = 4
_GONE = 410


class Message:
    """The webhook of a video that has ended."""

    def __init__(self, record: VideoRecord) -> None:
        assert record.request.webhook_url is not None
        assert record.completed_at is not None
        # A video ends once: every attempt has the same id.
        self.id = f"evt_{record.id.removeprefix('video_')}"
        self.url = record.request.webhook_url
        event = {
            "id": self.id,
            "object": "event",
            "created_at": int(record.completed_at),
            "type": f"video.{record.status}",
            "data": to_videos([record], {})[0].model_dump(mode="json"),
        }
        self.body = json.dumps(event).encode()

    def headers(self, secrets: Sequence[bytes], timestamp: int) -> dict[str, str]:
        """Return the headers, with a signature by each of the secrets."""
        signed = f"{self.id}.{timestamp}.".encode() + self.body
        digests = (hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets)
        return {
            "content-type": "application/json",
            "user-agent": "framedit-webhooks",
            "webhook-id": self.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests),
        }


class WebhookSender:
    """Sends the due webhooks of `webhooks` for the videos in `store`."""

    def __init__(
        self, webhooks: Webhooks, store: VideoStore, secrets: WebhookSecrets, network: httpcore.AsyncNetworkBackend
    ) -> None:
        self._webhooks = webhooks
        self._store = store
        self._secrets = secrets
        self._network = network
        self._sending: Counter[str] = Counter()  # by receiver
        self._one_ended = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send until the block ends. Webhooks that are then being sent become due again for another process."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        # Redirects are not followed: the pool sends one request and returns its response.
        pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=_MAX_SENDING,
            max_keepalive_connections=0,
            network_backend=self._network,
        )
        async with pool, asyncio.TaskGroup() as group:
            while True:
                self._one_ended.clear()
                pause_seconds = await self._start_due(pool, group)
                # Not wait_for: on Python 3.11 it swallows a cancellation that meets the event, and this never ends.
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds):
                        await self._one_ended.wait()

    async def _start_due(self, pool: httpcore.AsyncConnectionPool, group: asyncio.TaskGroup) -> float:
        """Start sending what is due within the limits. Returns the longest pause before the next call."""
        free = _MAX_SENDING - self._sending.total()
        if not free:
            return _POLL_SECONDS
        limits = (free, _MAX_SENDING_PER_RECEIVER, _MAX_SENDING_PER_OWNER)
        try:
            due = await run_in_threadpool(self._webhooks.take, *limits, dict(self._sending))
        except RedisError as error:
            logger.warning("webhooks not sent, trying again in %.0f s: Redis: %s", _REDIS_RETRY_SECONDS, error)
            return _REDIS_RETRY_SECONDS
        for webhook in due:
            self._sending[webhook.receiver] += 1
            group.create_task(self._attempt(pool, webhook))
        return _POLL_SECONDS

    async def _attempt(self, pool: httpcore.AsyncConnectionPool, due: Due) -> None:
        try:
            await self._deliver(pool, due)
        except Exception as error:  # due again after `SENDING_SECONDS`
            logger.warning("%s: webhook attempt %d not settled: %r", due.video_id, due.attempt, error)
        finally:
            self._sending[due.receiver] -= 1
            self._sending += Counter()  # drops receivers with a count of zero
            self._one_ended.set()

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, due: Due) -> None:
        record = await run_in_threadpool(self._store.find, due.video_id)
        if record is None or record.request.webhook_url is None:  # deleted meanwhile
            await run_in_threadpool(self._webhooks.done, due)
            return
        fault = await self._send(pool, record)
        if fault is None:
            await run_in_threadpool(self._webhooks.done, due)
        elif await run_in_threadpool(self._webhooks.failed, due):
            logger.warning("%s: webhook attempt %d failed: %s", due.video_id, due.attempt, fault)
        else:
            logger.error("%s: webhook given up after attempt %d: %s", due.video_id, due.attempt, fault)

    async def _send(self, pool: httpcore.AsyncConnectionPool, record: VideoRecord) -> str | None:
        """Return why the webhook was not received, None when it was, or when its receiver is gone (410)."""
        message = Message(record)
        headers = message.headers(self._secrets.of(record.owner), int(time.time()))
        try:
            sending = pool.stream("POST", message.url, headers=list(headers.items()), content=message.body)
            async with asyncio.timeout(_SEND_TIMEOUT_SECONDS), sending as response:
                status = response.status  # the body may be endless, and is not read
        except TimeoutError:
            return f"no response in {_SEND_TIMEOUT_SECONDS:.0f} s"
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return None if 200 <= status < 300 or status == _GONE else f"status {status}"


def sending_webhooks(services: Services) -> AbstractAsyncContextManager[None]:
    """Return a running sender with the settings' secret; without a secret no webhooks are sent."""
    settings = services.settings
    if settings.webhook_secret is None:
        return nullcontext()
    previous = settings.webhook_secret_previous
    secrets = WebhookSecrets(
        settings.webhook_secret.get_secret_value(), previous.get_secret_value() if previous is not None else None
    )
    network = PublicNetwork(settings.webhook_allow_private)
    return WebhookSender(Webhooks(services.redis), services.store, secrets, network).running()
