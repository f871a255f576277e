"""The mark that a database and its artifact store share, so that a store that is not mounted is not written to.

Redis keeps the mark, and the store has it in a file. The first process that finds neither sets both; from then on the
store is used only while it carries the mark. A missing or different mark means that the store is away: its folder is
not mounted, or belongs to another database.
"""

import logging
import secrets
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.errors import ArtifactStoreError
from jobs.storage.artifact_store import MARK, ArtifactStore
from jobs.videos.store import VideoStore

logger = logging.getLogger(__name__)

# How long a mark counts as not yet set up, in case the process that sets it up dies.
_SET_UP_SECONDS = 60


class StoreMark:
    """The mark of one database."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._videos = VideoStore(redis)
        self._mark: str | None = None
        self._has_warned = False

    def expected(self) -> str | None:
        """Return the mark that the store must carry, None before it is set up. Raises `RedisError`."""
        if self._mark is None:
            self._mark = self._read()
        return self._mark

    def bind(self, artifacts: ArtifactStore) -> None:
        """Check that the store belongs to this database; set up a new one. Raises `RedisError`.

        :raises ArtifactStoreError: when the store is away or belongs to another database.
        """
        # Another process may be setting them up: it writes to the database, to the store, and ends in the database.
        kept = self._read()
        is_new = kept is None or self._is_being_set_up()
        found = artifacts.mark()
        kept = kept or self._read()
        if found is None and is_new and self._may_be_ours(artifacts):
            # The database first: a mark that no database knows would belong to another for good.
            self._redis.set(redis_keys.ARTIFACT_STORE, secrets.token_hex(8), nx=True, ex=_SET_UP_SECONDS)
            kept = found = self._read() or ""
            artifacts.set_mark(kept)
            self._redis.persist(redis_keys.ARTIFACT_STORE)
        if kept is None or kept != found:
            self._refuse(kept, found)
        artifacts.make_private()
        self._mark = kept
        self._has_warned = False

    def _read(self) -> str | None:
        raw = cast(bytes | None, self._redis.get(redis_keys.ARTIFACT_STORE))
        return None if raw is None else raw.decode()

    def _is_being_set_up(self) -> bool:
        return self._redis.ttl(redis_keys.ARTIFACT_STORE) >= 0

    def _may_be_ours(self, artifacts: ArtifactStore) -> bool:
        """Return whether a store without a mark has files of this database, or both are new."""
        stored = set(artifacts.video_ids())
        states = self._videos.states()
        return bool(stored & states.keys()) or not (stored or "completed" in states.values())

    def _refuse(self, kept: str | None, found: str | None) -> None:
        reason = "it does not carry the mark of this database" if found is None else "it belongs to another database"
        if not self._has_warned:
            logger.warning(
                "artifact store not used: %s. Mount the store of this database. To adopt this one, let its file %s and "
                "the Redis key %s hold the same text%s",
                reason,
                MARK,
                redis_keys.ARTIFACT_STORE,
                f", {kept}" if kept else "",
            )
        self._has_warned = True
        raise ArtifactStoreError(f"the artifact store is away: {reason}")
