"""Tells the webhooks of videos how they ended, as https://www.standardwebhooks.com says.

The API process sends, not the worker: it is the one that has a way to the outside, and a slow receiver must not hold a
device. Several API processes share the work. Each webhook is sent on its own, so nobody waits for the slow receiver of
somebody else; a receiver has a few places among those that are sent at once, and no more.
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
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress

import httpcore
from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from jobs.records import VideoRecord
from jobs.settings import secret_bytes
from jobs.store import VideoStore
from jobs.webhooks import Due, Webhooks
from server.dependencies import Services
from server.public_network import PublicNetwork
from server.wire import to_videos

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_REDIS_RETRY_SECONDS = 5.0
_SEND_SECONDS = 15.0
_AT_ONCE = 128
_AT_ONCE_EACH = 4
_GONE = 410


class Message:
    """What the webhook of a video that has ended is told."""

    def __init__(self, record: VideoRecord) -> None:
        assert record.request.webhook_url is not None
        assert record.completed_at is not None
        self.id = f"evt_{record.id.removeprefix('video_')}"  # a video ends once: the same however often it is sent
        self.url = record.request.webhook_url
        event = {
            "id": self.id,
            "object": "event",
            "created_at": int(record.completed_at),
            "type": f"video.{record.status}",
            "data": to_videos([record], {})[0].model_dump(mode="json"),
        }
        self.body = json.dumps(event).encode()

    def headers(self, secret: bytes, timestamp: int) -> dict[str, str]:
        signed = f"{self.id}.{timestamp}.".encode() + self.body
        signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        return {
            "content-type": "application/json",
            "user-agent": "framedit-webhooks",
            "webhook-id": self.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": f"v1,{signature}",
        }


class WebhookSender:
    """Sends what `webhooks` has due, of the videos in `store`, signed with `secret`."""

    def __init__(self, webhooks: Webhooks, store: VideoStore, secret: str, network: PublicNetwork) -> None:
        self._webhooks = webhooks
        self._store = store
        self._secret = secret_bytes(secret)
        self._network = network
        self._busy: Counter[str] = Counter()  # how many are on their way to each receiver
        self._ended = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sends what is due until the block ends; what is then on its way is sent again by whoever comes next."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        # Redirects are not followed: a pool sends a request and gives its answer, no more.
        pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=_AT_ONCE,
            max_keepalive_connections=0,
            network_backend=self._network,
        )
        async with pool, asyncio.TaskGroup() as group:
            while True:
                self._ended.clear()
                pause = await self._begin(pool, group)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), pause)

    async def _begin(self, pool: httpcore.AsyncConnectionPool, group: asyncio.TaskGroup) -> float:
        """Send what is due and has a place. Answers after how many seconds to look again, if none has ended before."""
        places = _AT_ONCE - self._busy.total()
        try:
            busy = dict(self._busy)  # a copy: a thread reads it
            taken = await run_in_threadpool(self._webhooks.take, places, _AT_ONCE_EACH, busy) if places else []
        except RedisError as error:
            logger.warning("no webhooks sent, Redis is away: %s", error)
            return _REDIS_RETRY_SECONDS
        for due in taken:
            self._busy[due.receiver] += 1
            group.create_task(self._attend(pool, due))
        return _LOOK_SECONDS

    async def _attend(self, pool: httpcore.AsyncConnectionPool, due: Due) -> None:
        try:
            await self._deliver(pool, due)
        except Exception as error:  # it is due again in a while
            logger.warning("%s: webhook put off: %r", due.video_id, error)
        finally:
            self._busy[due.receiver] -= 1
            self._busy += Counter()  # forgets the receivers that have none
            self._ended.set()

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, due: Due) -> None:
        record = await run_in_threadpool(self._store.find, due.video_id)
        if record is None or record.request.webhook_url is None:  # it was deleted
            await run_in_threadpool(self._webhooks.done, due)
            return
        fault = await self._send(pool, Message(record))
        if fault is None:
            await run_in_threadpool(self._webhooks.done, due)
        elif await run_in_threadpool(self._webhooks.failed, due):
            logger.warning("%s: webhook not received, attempt %d: %s", due.video_id, due.attempt, fault)
        else:
            logger.error("%s: webhook given up after attempt %d: %s", due.video_id, due.attempt, fault)

    async def _send(self, pool: httpcore.AsyncConnectionPool, message: Message) -> str | None:
        """What went wrong, None when it was received (or its receiver wants no more of it)."""
        headers = message.headers(self._secret, int(time.time()))
        try:
            sending = pool.stream("POST", message.url, headers=list(headers.items()), content=message.body)
            async with asyncio.timeout(_SEND_SECONDS), sending as answer:
                status = answer.status  # its body is of no interest, and may be endless
        except TimeoutError:
            return f"no answer in {_SEND_SECONDS:.0f} s"
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return None if 200 <= status < 300 or status == _GONE else f"answered {status}"


def sending_webhooks(services: Services) -> AbstractAsyncContextManager[None]:
    """A sender as the settings want it, which is none where they have no secret to sign with."""
    settings = services.settings
    if settings.webhook_secret is None:
        return nullcontext()
    network = PublicNetwork(settings.webhook_allow_private)
    return WebhookSender(Webhooks(services.redis), services.store, settings.webhook_secret, network).running()
