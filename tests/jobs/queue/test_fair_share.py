"""Fairness between owners, whatever each of them has queued."""

from collections import Counter

from redis import Redis

from jobs import redis_keys
from jobs.queue.claim import Claims
from jobs.queue.fair_share import FairShare
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from tests.jobs.making import make_record


def queue_up(store: VideoStore, owner: str | None, count: int, cost: int = 10) -> list[VideoRecord]:
    records = [make_record().model_copy(update={"owner": owner, "cost": cost}) for _ in range(count)]
    store.create(*records)
    return records


def serve(redis: Redis, store: VideoStore, count: int) -> list[str | None]:
    """The owners of the next few videos, each claimed as a worker does."""
    claims = Claims(redis, store, ["tiny-text"], "w1")
    taken = [claims.take() for _ in range(count)]
    assert None not in taken
    return [claim.record.owner for claim in taken if claim is not None]


def test_one_owner_s_videos_go_in_order(redis: Redis, store: VideoStore) -> None:
    records = queue_up(store, None, 3)
    head = FairShare(redis).next("tiny-text", "normal")
    assert head is not None
    assert head.job_id == records[0].id


def test_a_thousand_videos_of_one_do_not_hold_up_one_of_another(redis: Redis, store: VideoStore) -> None:
    queue_up(store, "many", 1000)
    assert serve(redis, store, 5) == ["many"] * 5
    queue_up(store, "one", 1)
    assert "one" in serve(redis, store, 2)


def test_it_is_cost_that_is_shared_not_videos(redis: Redis, store: VideoStore) -> None:
    queue_up(store, "short", 100, cost=10)
    queue_up(store, "long", 100, cost=40)
    assert Counter(serve(redis, store, 50)) == {"short": 40, "long": 10}


def test_time_away_earns_nothing(redis: Redis, store: VideoStore) -> None:
    queue_up(store, "steady", 100)
    serve(redis, store, 50)
    queue_up(store, "new", 50)
    assert abs(serve(redis, store, 20).count("new") - 10) <= 1


def test_asking_one_by_one_gets_no_more_than_a_share(redis: Redis, store: VideoStore) -> None:
    """An owner whose queue is empty after each video comes back where it left, not in front."""
    queue_up(store, "many", 20)
    served = []
    for _ in range(20):
        if "one" not in served[-1:]:
            queue_up(store, "one", 1)
        served += serve(redis, store, 1)
    assert abs(served.count("one") - served.count("many")) <= 1


def test_empty_queues_leave_no_virtual_times(redis: Redis, store: VideoStore) -> None:
    queue_up(store, "a", 1)
    queue_up(store, "b", 1)
    serve(redis, store, 2)
    assert FairShare(redis).next("tiny-text", "normal") is None
    assert not redis.exists(redis_keys.virtual_times("tiny-text", "normal"))
    assert not redis.exists(redis_keys.WAITING_COST)
