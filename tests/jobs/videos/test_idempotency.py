import threading

import pytest
from redis import Redis

from jobs.errors import IdempotencyConflictError
from jobs.videos.idempotency import AlreadyCreatedError, OnceGuard, fingerprint
from jobs.videos.store import VideoStore
from tests.jobs.making import make_record

ASKED = fingerprint("/v1/videos", {"prompt": "x"})


def test_the_second_request_finds_the_videos_of_the_first(redis: Redis, store: VideoStore) -> None:
    once = OnceGuard("key_a", "order 1", ASKED)
    assert once.find(redis) is None
    records = [make_record(), make_record()]
    store.create(*records, guards=[once])
    assert once.find(redis) == [record.id for record in records]
    with pytest.raises(AlreadyCreatedError) as caught:
        store.create(make_record(), guards=[once])
    assert caught.value.video_ids == [record.id for record in records]
    assert len(store.list().records) == 2
    [key] = redis.keys("framedit:idempotency:*")
    assert 0 < redis.ttl(key) <= 24 * 3600


def test_another_request_with_the_same_key_is_refused(redis: Redis, store: VideoStore) -> None:
    store.create(make_record(), guards=[OnceGuard("key_a", "order 1", ASKED)])
    with pytest.raises(IdempotencyConflictError, match="'order 1' was used for another request"):
        OnceGuard("key_a", "order 1", fingerprint("/v1/videos", {"prompt": "y"})).find(redis)


def test_each_owner_has_keys_of_its_own(redis: Redis, store: VideoStore) -> None:
    store.create(make_record(), guards=[OnceGuard("key_a", "1", ASKED)])
    assert OnceGuard("key_b", "1", ASKED).find(redis) is None
    assert OnceGuard(None, "1", ASKED).find(redis) is None


def test_of_many_requests_at_once_one_creates(redis: Redis, store: VideoStore) -> None:
    once = OnceGuard(None, "1", ASKED)
    barrier = threading.Barrier(8)
    found: list[str] = []

    def create() -> None:
        record = make_record()
        barrier.wait()
        try:
            store.create(record, guards=[once])
            found.append(record.id)
        except AlreadyCreatedError as error:
            found.extend(error.video_ids)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert set(found) == {record.id for record in store.list().records}
    assert len(set(found)) == 1


def test_the_order_of_fields_is_no_difference() -> None:
    assert fingerprint("/a", {"x": 1, "y": [1.5, None]}) == fingerprint("/a", {"y": [1.5, None], "x": 1})
    assert fingerprint("/a", {"x": 1}) != fingerprint("/a", {"x": "1"}) != fingerprint("/b", {"x": "1"})
