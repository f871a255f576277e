"""Clears away what has had its time: videos that have expired, and what is orphaned of records and files.

The servers run it, not the workers: theirs is the promise (lists, 410), and a worker's spare thread keeps leases, which
must not wait for a disk. Redis gives one server at a time the turn; a second one at the same work would do no harm.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from redis import Redis

from jobs.artifacts import ArtifactStore
from jobs.records import Status
from jobs.store import VideoStore

logger = logging.getLogger(__name__)

EXPIRE_EVERY_SECONDS = 30
SWEEP_EVERY_SECONDS = 600
# What has no counterpart is left alone for as long as no worker needs to write a video, or to take back one that was
# deleted meanwhile. So nothing is removed that is being written.
ORPHANED_FOR_SECONDS = 3600

_TURN_KEY = "framedit:janitor:{work}"
_ORPHANS_KEY = "framedit:janitor:orphans"
_MARK_KEY = "framedit:artifacts"


class Janitor:
    def __init__(self, redis: Redis, store: VideoStore, artifacts: ArtifactStore) -> None:
        self._redis = redis
        self._store = store
        self._artifacts = artifacts
        self._has_warned = False

    def run(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Do what is due. Raises `RedisError` and `ArtifactStoreError`; what was left undone is done another time."""
        if self._takes_turn("expire", EXPIRE_EVERY_SECONDS):
            self.expire(stopping)
        if self._takes_turn("sweep", SWEEP_EVERY_SECONDS):
            self.sweep(stopping)

    def expire(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Remove the videos whose time is over, record and files."""
        while records := self._store.expired():
            for record in records:
                if stopping():
                    return
                # The record first: nobody is shown a video whose file is gone. A file that is left behind, when this
                # process ends here, has no record, and goes with the orphans.
                if self._store.bury(record):
                    logger.info("%s: expired", record.id)
                self._artifacts.delete(record.id)

    def sweep(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Remove files without a record, and completed records without files, that have been so for an hour."""
        # Files first, records after: what is stored in between has its record by then.
        stored = set(self._artifacts.video_ids())
        states = self._store.states()
        if not self._belongs_together(stored, states):
            return
        completed = {video_id for video_id, status in states.items() if status == "completed"}
        for video_id in self._orphaned_for_long((stored - states.keys()) | (completed - stored)):
            if stopping():
                return
            self._remove(video_id)

    def _remove(self, video_id: str) -> None:
        record = self._store.find(video_id)
        if record is not None and (record.status != "completed" or self._artifacts.exists(video_id)):
            return
        if record is not None:
            self._store.bury(record)
        self._artifacts.delete(video_id)
        logger.warning("%s: its %s was removed", video_id, "file had no record" if record is None else "record")

    def _orphaned_for_long(self, video_ids: Iterable[str]) -> list[str]:
        """Of those that are orphaned now the ones that were an hour ago. Any server may have seen it."""
        now = time.time()
        known = {raw.decode() for raw in cast(list[bytes], self._redis.zrange(_ORPHANS_KEY, 0, -1))}
        orphans = set(video_ids)
        with self._redis.pipeline() as pipe:
            if known - orphans:
                pipe.zrem(_ORPHANS_KEY, *(known - orphans))
            if orphans - known:
                pipe.zadd(_ORPHANS_KEY, dict.fromkeys(orphans - known, now), nx=True)
            pipe.zrange(_ORPHANS_KEY, "-inf", now - ORPHANED_FOR_SECONDS, byscore=True)
            return [raw.decode() for raw in pipe.execute()[-1]]

    def _belongs_together(self, stored: set[str], states: Mapping[str, Status]) -> bool:
        """Whether the files are those of this database: an empty one, or a folder that is not mounted, must not make
        orphans of everything. Each keeps the same mark; the first videos that are found in both set it."""
        mark = self._artifacts.mark()
        kept = cast(bytes | None, self._redis.get(_MARK_KEY))
        if mark is None:
            is_new = not stored and "completed" not in states.values()
            if not is_new and not stored & states.keys():
                return self._refuse(
                    "none of the files in the artifact store is known to this database, or all are away"
                )
            # The database first: a mark that no database knows would be another's for good.
            self._redis.set(_MARK_KEY, secrets.token_hex(8), nx=True)
            self._artifacts.set_mark(cast(bytes, self._redis.get(_MARK_KEY)).decode())
            return True
        if kept is None or kept.decode() != mark:
            return self._refuse("the files in the artifact store belong to another database")
        return True

    def _refuse(self, why: str) -> bool:
        if not self._has_warned:
            logger.warning(
                "%s: nothing is cleaned up. Give each database an artifact store of its own; to hand this one over, "
                "remove .framedit/database in it",
                why,
            )
        self._has_warned = True
        return False

    def _takes_turn(self, work: str, every_seconds: int) -> bool:
        return bool(self._redis.set(_TURN_KEY.format(work=work), 1, nx=True, ex=every_seconds))
