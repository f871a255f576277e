"""One reader of video events for all clients of this process: two connections to Redis for any number of streams."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from jobs import redis_keys
from jobs.connection import connect_async
from jobs.videos.events import START, Position, VideoEvent, parse_entries

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_LISTEN_SECONDS = 10.0
# More than a stream in Redis holds. A slow client only misses steps that later events have overtaken.
_MAX_PENDING = 128

DELETED = VideoEvent((2**63, 0), "failed", {"deleted": True})


class Subscription:
    """The events of one video that one client has not received yet, from a position on."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._pending: deque[VideoEvent] = deque(maxlen=_MAX_PENDING)
        self._changed = asyncio.Event()
        self.closed = False

    async def next(self, timeout_seconds: float) -> VideoEvent | None:
        """The next event. None at the timeout, or when the hub has closed the subscription (`closed`)."""
        if not self._pending and not self.closed:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_seconds):
                    await self._changed.wait()
        return self._pending.popleft() if self._pending else None

    def push(self, event: VideoEvent) -> None:
        """Add an event, unless its position was passed already."""
        if event.position > self._position:
            self._position = event.position
            self._pending.append(event)
            self._changed.set()

    def close(self) -> None:
        """End the subscription; `next` returns what is pending, then None."""
        self.closed = True
        self._changed.set()


class _Channel:
    """A video with at least one subscription, and the position up to which its stream was read."""

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.position = START

    def publish(self, events: Iterable[VideoEvent]) -> None:
        for event in events:
            self.position = max(self.position, event.position)
            for subscription in self.subscriptions:
                subscription.push(event)


class EventHub:
    """Reads the streams of all subscribed videos. For one event loop; it connects at the first subscription."""

    def __init__(self, redis_url: str, timeout_seconds: float) -> None:
        self._redis = connect_async(redis_url, timeout_seconds)
        self._channels: defaultdict[str, _Channel] = defaultdict(_Channel)
        self._unread: set[str] = set()
        self._notified = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @contextmanager
    def subscribe(self, video_id: str, position: Position) -> Iterator[Subscription]:
        """The events of a video after `position`, until the block ends."""
        subscription = Subscription(position)
        channel = self._channels[video_id]
        channel.subscriptions.add(subscription)
        # Earlier subscriptions may have received these events already: read them again.
        channel.position = min(channel.position, position)
        if self._closed:
            subscription.close()
        elif not self._tasks:
            self._tasks = [asyncio.create_task(work) for work in (self._listen(), self._read_notified())]
        try:
            yield subscription
        finally:
            channel.subscriptions.remove(subscription)
            if not channel.subscriptions:
                self._channels.pop(video_id, None)

    async def refresh(self, video_id: str) -> None:
        """Read the new events of a video now, or as soon as Redis answers again."""
        try:
            await self._read({video_id})
        except RedisError:
            self._notify({video_id})

    def close(self) -> None:
        """End all subscriptions. Clients reconnect to another process with their last event id and miss nothing."""
        self._closed = True
        for channel in self._channels.values():
            for subscription in channel.subscriptions:
                subscription.close()

    async def aclose(self) -> None:
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    def _notify(self, video_ids: Set[str]) -> None:
        self._unread |= video_ids
        self._notified.set()

    async def _listen(self) -> None:
        """Receive notifications. All streams are read after a silence and after a lost connection."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(redis_keys.EVENTS_CHANNEL)
                    while True:
                        message = await pubsub.get_message(timeout=_LISTEN_SECONDS)
                        self._notify({message["data"].decode()} if message else self._channels.keys())
            except RedisError as error:
                logger.warning("event notifications interrupted, retrying in %g s: %s", _RETRY_SECONDS, error)
            except Exception:
                logger.exception("event notifications failed, retrying in %g s", _RETRY_SECONDS)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _read_notified(self) -> None:
        """Read the streams that notifications named, together where several arrived meanwhile."""
        while True:
            await self._notified.wait()
            self._notified.clear()
            video_ids, self._unread = self._unread, set()
            try:
                await self._read(video_ids)
            except Exception as error:
                logger.warning("event streams not read, retrying in %g s: %r", _RETRY_SECONDS, error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._notify(video_ids)

    async def _read(self, video_ids: Set[str]) -> None:
        channels = {video_id: self._channels[video_id] for video_id in video_ids & self._channels.keys()}
        if not channels:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for video_id, channel in channels.items():
                pipe.xrange(redis_keys.events(video_id), f"({channel.position[0]}-{channel.position[1]}")
                pipe.exists(redis_keys.video(video_id))
            replies = iter(await pipe.execute())
        for channel in channels.values():
            events = parse_entries(next(replies))
            record_exists = next(replies)
            channel.publish(events if record_exists else [*events, DELETED])
