"""The owners of videos, the guards of their creation, and their ends."""

import threading
import time
from collections.abc import Sequence

import pytest
from redis import Redis
from redis.client import Pipeline

from jobs.errors import FrameditError
from jobs.videos.record import Artifact, ArtifactKind, Timings, VideoRecord, new_records
from jobs.videos.store import VideoStore
from tests.jobs.every_role import EveryRole
from tests.jobs.making import make_record, make_request

ARTIFACTS: dict[ArtifactKind, Artifact] = {"video": Artifact(num_bytes=5, sha256="0" * 64)}


def owned(owner: str, count: int = 1) -> list[VideoRecord]:
    return new_records(make_request(), time.time(), count, owner=owner)


def ids(records: Sequence[VideoRecord]) -> list[str]:
    return [record.id for record in records]


def test_a_list_of_one_owner_holds_no_other_s(store: VideoStore) -> None:
    mine, yours = owned("key_a", 3), owned("key_b", 2)
    store.create(*mine)
    store.create(*yours, make_record())
    page = store.list(limit=2, owner="key_a")
    assert (ids(page.records), page.has_more) == (ids(mine)[:0:-1], True)
    rest = store.list(after=mine[1].id, owner="key_a")
    assert (ids(rest.records), rest.has_more) == (ids(mine[:1]), False)
    assert len(store.list().records) == 6
    store.delete(mine[0].id)
    assert ids(store.list(owner="key_a", order="asc").records) == ids(mine[1:])


class AtMost:
    """A guard: no more than `limit` records ever, counted slowly."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def watched(self) -> Sequence[str]:
        return ["count"]

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        count = int(pipe.get("count") or 0)
        if count + len(records) > self._limit:
            raise FrameditError("too many")

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        pipe.incrby("count", len(records))


def test_a_refused_guard_writes_nothing(store: VideoStore) -> None:
    store.create(make_record(), guards=[AtMost(1)])
    with pytest.raises(FrameditError, match="too many"):
        store.create(make_record(), guards=[AtMost(1)])
    assert len(store.list().records) == len(store.unfinished()) == 1


def test_a_guard_holds_when_many_create_at_once(store: VideoStore) -> None:
    barrier = threading.Barrier(8)
    refused = []

    def create() -> None:
        barrier.wait()
        try:
            store.create(make_record(), guards=[AtMost(3)])
        except FrameditError:
            refused.append(1)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(store.list().records), len(refused)) == (3, 5)


def test_only_ended_videos_expire(redis: Redis) -> None:
    store = EveryRole(redis, video_ttl_seconds=60)
    completed, failed, waiting = owned("key_a", 3)
    store.create(completed, failed, waiting)
    store.start(completed.id, "w1")
    store.complete(completed.id, ARTIFACTS, Timings())
    store.fail(failed.id, "x", "y")
    assert store.expired() == []
    assert redis.zrange("framedit:videos:expiring", 0, -1) == [completed.id.encode(), failed.id.encode()]

    redis.zadd("framedit:videos:expiring", {completed.id: time.time() - 1})
    assert ids(store.expired()) == [completed.id]
    assert store.remove(store.get(completed.id))
    assert store.find(completed.id) is None
    assert completed.id not in ids(store.list(owner="key_a").records)
    assert store.expired() == []
    assert store.is_gone(completed.id)
    assert store.is_gone(completed.id, "key_a")
    assert not store.is_gone(completed.id, "key_b")
    assert not store.is_gone(failed.id)
    assert 0 < redis.ttl(f"framedit:gone:{completed.id}") <= 24 * 3600


def test_nothing_expires_where_no_end_is_set(redis: Redis, store: VideoStore) -> None:
    record = make_record()
    store.create(record)
    store.fail(record.id, "x", "y")
    assert store.get(record.id).expires_at is None
    assert redis.exists("framedit:videos:expiring") == 0
