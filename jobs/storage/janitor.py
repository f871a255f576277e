"""The janitor removes expired videos, jobs of ended videos, and orphans: files without a record, records without files.

The servers run it, because they answer for lists and for status 410; a worker's spare thread renews leases and must not
wait for a disk. A key in Redis lets one server at a time run a task. Running it twice is harmless.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.queue import rq_adapter
from jobs.queue.redis_allow_oom import AllowOomRedis
from jobs.queue.transitions import Transitions
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from jobs.videos.record import VideoRecord, is_video_id
from jobs.videos.store import VideoStore

logger = logging.getLogger(__name__)

EXPIRE_EVERY_SECONDS = 30
SWEEP_EVERY_SECONDS = 600
# An orphan is removed only after a time in which every worker has either written its video or learned that it was
# deleted. So no file is removed while it is being written.
ORPHANED_FOR_SECONDS = 3600

# How long the content of a removed video answers 410 before it answers 404.
GONE_SECONDS = 24 * 3600


class ExpiredVideos(VideoStore):
    """The records as the janitor uses them."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._transitions = Transitions(redis)

    def expired(self, limit: int = 100) -> Sequence[VideoRecord]:
        """Return records whose time to live is over, the longest expired first."""
        ids = self._redis.zrange(redis_keys.EXPIRING, "-inf", time.time(), byscore=True, offset=0, num=limit)
        return self.fetch(raw.decode() for raw in cast(Sequence[bytes], ids))

    def remove(self, record: VideoRecord) -> bool:
        """Remove a record that has expired or lost its files. False when another process has removed it.

        For a day `is_gone` says that the video existed.
        """
        # The mark first: a crash in between must not turn an expired video into one that never existed.
        self._redis.set(redis_keys.gone(record.id), record.owner or "", ex=GONE_SECONDS)
        return self._transitions.delete(record)


class Janitor:
    def __init__(self, redis: Redis, artifacts: ArtifactStore, mark: StoreMark) -> None:
        self._redis = redis
        # Expiry frees memory, so it must run in a full Redis, too.
        self._allow_oom = AllowOomRedis.over(redis)
        self._videos = ExpiredVideos(self._allow_oom)
        self._artifacts = artifacts
        self._mark = mark

    def run(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Run the tasks that are due, and check the store.

        Raises `RedisError` and `ArtifactStoreError`; the next run does the rest.
        """
        if self._is_due("expire", EXPIRE_EVERY_SECONDS):
            self.expire(stopping)
        if self._is_due("jobs", SWEEP_EVERY_SECONDS):
            self.forget_jobs()
        self._mark.bind(self._artifacts)
        if self._is_due("sweep", SWEEP_EVERY_SECONDS):
            self.sweep(stopping)

    def expire(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Remove expired videos: record and files."""
        while records := self._videos.expired():
            for record in records:
                if stopping():
                    return
                # The record first: no client sees a video without its file. If this process ends in between, the file
                # becomes an orphan and is swept.
                if self._videos.remove(record):
                    logger.info("%s: expired", record.id)
                self._artifacts.delete(record.id)

    def forget_jobs(self) -> None:
        """Remove the jobs of videos that have ended or were deleted after their worker had died.

        Version 0.1 left them without a time to live.
        """
        # Jobs before records: the record of a new video is unfinished by then.
        jobs = rq_adapter.jobs_without_ttl(self._redis)
        for video_id in jobs.difference(self._videos.unfinished_ids()):
            if is_video_id(video_id):
                self._redis.expire(redis_keys.job(video_id), ORPHANED_FOR_SECONDS)

    def sweep(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Remove what was orphaned an hour ago: files without a record, records without files, incomplete files."""
        self._mark.bind(self._artifacts)
        # Files before records: a file that is stored in between has its record by then.
        stored = set(self._artifacts.video_ids())
        states = self._videos.states()
        completed = {video_id for video_id, status in states.items() if status == "completed"}
        for video_id in self._orphaned_for_long((stored - states.keys()) | (completed - stored)):
            if stopping():
                return
            self._remove(video_id)
        if num_parts := self._artifacts.remove_parts(ORPHANED_FOR_SECONDS):
            logger.warning("%d incomplete files of killed processes removed", num_parts)

    def _remove(self, video_id: str) -> None:
        record = self._videos.find(video_id)
        if record is not None and (record.status != "completed" or self._has_file(record)):
            return
        if record is not None:
            self._videos.remove(record)
        self._artifacts.delete(video_id)
        logger.warning("%s: orphan removed, %s", video_id, "no record" if record is None else "no file")

    def _has_file(self, record: VideoRecord) -> bool:
        return any(self._artifacts.exists(record.id, kind) for kind in record.artifacts)

    def _orphaned_for_long(self, video_ids: Iterable[str]) -> list[str]:
        """Return those of the present orphans that any server saw an hour ago."""
        now = time.time()
        known = {raw.decode() for raw in cast(list[bytes], self._redis.zrange(redis_keys.ORPHANS, 0, -1))}
        orphans = set(video_ids)
        with self._redis.pipeline() as pipe:
            if known - orphans:
                pipe.zrem(redis_keys.ORPHANS, *(known - orphans))
            if orphans - known:
                pipe.zadd(redis_keys.ORPHANS, dict.fromkeys(orphans - known, now), nx=True)
            pipe.zrange(redis_keys.ORPHANS, "-inf", now - ORPHANED_FOR_SECONDS, byscore=True)
            return [raw.decode() for raw in pipe.execute()[-1]]

    def _is_due(self, task: str, every_seconds: int) -> bool:
        return bool(self._allow_oom.set(redis_keys.maintenance(task), 1, nx=True, ex=every_seconds))
