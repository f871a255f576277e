"""One reader of events for all clients of this process: two connections to Redis, however many streams are open."""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from jobs.connection import connect_async
from jobs.events import BELL, START, Position, VideoEvent, parse_entries, stream_key
from jobs.store import record_key

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_LISTEN_SECONDS = 10.0
# More than a stream holds: what a client that reads slowly misses beyond this are steps that are long done.
_MAX_PENDING = 128

DELETED = VideoEvent((2**63, 0), "failed", {"deleted": True})


class Watcher:
    """What one client has still to be told of one video, from a position on."""

    def __init__(self, position: Position) -> None:
        self._position = position
        self._pending: deque[VideoEvent] = deque(maxlen=_MAX_PENDING)
        self._ring = asyncio.Event()
        self.closed = False

    async def next(self, timeout_seconds: float) -> VideoEvent | None:
        """The next event; None when there is none in time, or no more (`closed`)."""
        if not self._pending and not self.closed:
            self._ring.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ring.wait(), timeout_seconds)
        return self._pending.popleft() if self._pending else None

    def tell(self, event: VideoEvent) -> None:
        if event.position > self._position:
            self._position = event.position
            self._pending.append(event)
            self._ring.set()

    def close(self) -> None:
        self.closed = True
        self._ring.set()


class _Watched:
    """A video that somebody follows."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self.position = START


class EventHub:
    """To be used in the thread of its event loop alone. It listens from its first watcher on."""

    def __init__(self, redis_url: str, timeout_seconds: float) -> None:
        self._redis = connect_async(redis_url, timeout_seconds)
        self._watched: defaultdict[str, _Watched] = defaultdict(_Watched)
        self._unread: set[str] = set()
        self._rung = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False

    @contextmanager
    def watch(self, video_id: str, position: Position) -> Iterator[Watcher]:
        """What happens to a video after `position`."""
        watcher = Watcher(position)
        watched = self._watched[video_id]
        watched.watchers.add(watcher)
        # Others may have been told of what came after it already.
        watched.position = min(watched.position, position)
        if self._closed:
            watcher.close()
        elif not self._tasks:
            self._tasks = [asyncio.create_task(work) for work in (self._listen(), self._answer())]
        try:
            yield watcher
        finally:
            watched.watchers.remove(watcher)
            if not watched.watchers:
                self._watched.pop(video_id, None)

    async def refresh(self, video_id: str) -> None:
        """Tell the watchers of a video what is new now; where Redis is away, as soon as it answers."""
        try:
            await self._read({video_id})
        except RedisError:
            self._ring({video_id})

    def close(self) -> None:
        """End all that is open: clients come back to whoever serves them next, and have missed nothing."""
        self._closed = True
        for watched in self._watched.values():
            for watcher in watched.watchers:
                watcher.close()

    async def aclose(self) -> None:
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._redis.aclose()

    def _ring(self, video_ids: Set[str]) -> None:
        self._unread |= video_ids
        self._rung.set()

    async def _listen(self) -> None:
        """Hear the bell. After a silence, and when it was not heard for a while, all are looked at."""
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as bell:
                    await bell.subscribe(BELL)
                    while True:
                        message = await bell.get_message(timeout=_LISTEN_SECONDS)
                        self._ring({message["data"].decode()} if message else self._watched.keys())
            except RedisError as error:
                logger.warning("no events, Redis is away: %s", error)
            except Exception:
                logger.exception("no events")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _answer(self) -> None:
        """Read what the bell was rung for, all that has come together at once."""
        while True:
            await self._rung.wait()
            self._rung.clear()
            unread, self._unread = self._unread, set()
            try:
                await self._read(unread)
            except Exception as error:
                logger.warning("events come late: %r", error)
                await asyncio.sleep(_RETRY_SECONDS)
                self._ring(unread)

    async def _read(self, video_ids: Set[str]) -> None:
        asked = {video_id: self._watched[video_id] for video_id in video_ids & self._watched.keys()}
        if not asked:
            return
        async with self._redis.pipeline(transaction=False) as pipe:
            for video_id, watched in asked.items():
                pipe.xrange(stream_key(video_id), f"({watched.position[0]}-{watched.position[1]}")
                pipe.exists(record_key(video_id))
            answers = iter(await pipe.execute())
        for watched in asked.values():
            events = parse_entries(next(answers))
            _tell(watched, events if next(answers) else [*events, DELETED])


def _tell(watched: _Watched, events: Iterable[VideoEvent]) -> None:
    for event in events:
        watched.position = max(watched.position, event.position)
        for watcher in watched.watchers:
            watcher.tell(event)
