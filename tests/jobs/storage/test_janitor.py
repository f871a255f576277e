import time
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis

from jobs.errors import ArtifactStoreError, VideoNotFoundError
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.janitor import ORPHANED_FOR_SECONDS, Janitor
from jobs.storage.store_mark import StoreMark
from jobs.videos.record import Timings, VideoRecord
from jobs.videos.store import VideoStore
from tests.jobs.every_role import EveryRole
from tests.jobs.making import make_record

ORPHANS = "framedit:janitor:orphans"


@pytest.fixture
def store(redis: Redis) -> EveryRole:
    return EveryRole(redis, video_ttl_seconds=60)


@pytest.fixture
def artifacts(artifacts_dir: Path) -> ArtifactStore:
    return ArtifactStore(artifacts_dir)


@pytest.fixture
def janitor(redis: Redis, store: VideoStore, artifacts: ArtifactStore) -> Janitor:
    return Janitor(redis, artifacts, StoreMark(redis))


@pytest.fixture
def made(store: VideoStore, artifacts: ArtifactStore, tmp_path: Path) -> Callable[[], VideoRecord]:
    """Makes a finished video."""
    source = tmp_path / "source.mp4"
    source.write_bytes(b"mp4")

    def make() -> VideoRecord:
        record = make_record()
        store.create(record)
        store.start(record.id, "w1")
        artifact = artifacts.write(record.id, "video", source)
        assert store.complete(record.id, {"video": artifact}, Timings(), "w1")
        return store.get(record.id)

    return make


def let_time_pass(redis: Redis) -> None:
    """As if all that is orphaned now had been so for long."""
    for video_id in redis.zrange(ORPHANS, 0, -1):
        redis.zincrby(ORPHANS, -ORPHANED_FOR_SECONDS, video_id)


def sweep_in_vain(janitor: Janitor) -> None:
    with pytest.raises(ArtifactStoreError, match="the artifact store is away"):
        janitor.sweep()


def test_record_and_files_expire_together(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor, made: Callable[[], VideoRecord]
) -> None:
    old, young = made(), made()
    redis.zadd("framedit:videos:expiring", {old.id: time.time() - 1})
    janitor.run()
    assert store.find(old.id) is None
    assert not artifacts.exists(old.id)
    assert store.is_gone(old.id)
    assert store.get(young.id) == young
    assert artifacts.exists(young.id)


def test_more_expire_than_are_read_at_once(redis: Redis, store: VideoStore, janitor: Janitor) -> None:
    records = [make_record() for _ in range(130)]
    store.create(*records)
    for record in records:
        store.fail(record.id, "x", "y")
    redis.zadd("framedit:videos:expiring", {record.id: 1 for record in records})
    janitor.expire()
    assert store.list(limit=100).records == []
    assert redis.exists("framedit:videos:expiring") == 0


def test_of_several_servers_one_has_the_turn(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor
) -> None:
    janitor.run()
    record = make_record()
    store.create(record)
    store.fail(record.id, "x", "y")
    redis.zadd("framedit:videos:expiring", {record.id: 1})
    other = Janitor(redis, artifacts, StoreMark(redis))
    other.run()
    assert store.find(record.id) is not None
    assert 0 < redis.ttl("framedit:janitor:expire") <= 30
    redis.delete("framedit:janitor:expire")
    other.run()
    assert store.find(record.id) is None


def test_files_without_a_record_go_after_a_while(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor, made: Callable[[], VideoRecord]
) -> None:
    orphan, kept = made(), made()
    store.delete(orphan.id)
    janitor.sweep()
    assert artifacts.exists(orphan.id), "who deletes a video removes its files a moment later"
    let_time_pass(redis)
    janitor.sweep()
    assert not artifacts.exists(orphan.id)
    assert artifacts.exists(kept.id)
    janitor.sweep()
    assert redis.exists(ORPHANS) == 0


def test_a_record_without_files_goes_after_a_while(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor, made: Callable[[], VideoRecord]
) -> None:
    orphan, kept = made(), made()
    artifacts.delete(orphan.id)
    janitor.sweep()
    assert store.get(orphan.id) == orphan
    let_time_pass(redis)
    janitor.sweep()
    with pytest.raises(VideoNotFoundError):
        store.get(orphan.id)
    assert store.is_gone(orphan.id)
    assert store.get(kept.id) == kept


def test_files_of_a_running_video_are_no_orphans(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor, tmp_path: Path
) -> None:
    waiting, running, written = (make_record() for _ in range(3))
    store.create(waiting, running, written)
    store.start(running.id, "w1")
    store.start(written.id, "w1")
    (tmp_path / "video.mp4").write_bytes(b"mp4")
    artifact = artifacts.write(written.id, "video", tmp_path / "video.mp4")
    for _ in range(3):
        janitor.sweep()
        let_time_pass(redis)
    assert store.complete(written.id, {"video": artifact}, Timings(), "w1")
    assert artifacts.exists(written.id)
    assert len(store.unfinished()) == 2


def test_former_orphans_are_forgotten(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor, made: Callable[[], VideoRecord]
) -> None:
    record, _ = made(), made()
    folder = artifacts.path(record.id).parent
    folder.rename(folder.with_name("away"))
    janitor.sweep()
    assert redis.zcard(ORPHANS) == 1
    folder.with_name("away").rename(folder)
    let_time_pass(redis)
    janitor.sweep()
    assert store.get(record.id) == record
    assert redis.zcard(ORPHANS) == 0


def test_a_database_that_lost_everything_makes_no_orphans(
    redis: Redis, store: VideoStore, artifacts: ArtifactStore, janitor: Janitor, made: Callable[[], VideoRecord]
) -> None:
    old = made()
    janitor.sweep()
    redis.flushall()
    for _ in range(3):
        sweep_in_vain(janitor)
        let_time_pass(redis)
    made()
    for _ in range(3):
        sweep_in_vain(janitor)
        let_time_pass(redis)
    assert artifacts.exists(old.id)


def test_a_folder_that_is_not_mounted_makes_no_orphans(
    redis: Redis, store: VideoStore, tmp_path: Path, janitor: Janitor, made: Callable[[], VideoRecord]
) -> None:
    record = made()
    janitor.sweep()
    elsewhere = Janitor(redis, ArtifactStore(tmp_path / "empty"), StoreMark(redis))
    for _ in range(3):
        sweep_in_vain(elsewhere)
        let_time_pass(redis)
    assert store.get(record.id) == record


def test_jobs_that_version_0_1_left_behind_expire(redis: Redis, store: EveryRole, janitor: Janitor) -> None:
    cancelled, deleted, queued, started = (make_record() for _ in range(4))
    store.create(cancelled, deleted, queued, started)
    for record in (cancelled, deleted, started):
        store.start(record.id, "w1")
    store.cancel(cancelled.id)
    store.delete(deleted.id)
    for record in (cancelled, deleted, started):  # as RQ leaves the job of a killed worker
        redis.persist(f"rq:job:{record.id}")
        redis.hset(f"rq:job:{record.id}", "status", "started")
    janitor.forget_jobs()
    ttls = [redis.ttl(f"rq:job:{record.id}") for record in (cancelled, deleted, queued, started)]
    assert [ttl > 0 for ttl in ttls] == [True, True, False, False]
    assert ttls[2:] == [-1, -1]
