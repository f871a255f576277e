"""Which job is next."""

from redis import Redis

from jobs.queue.claim import Claims
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from tests.worker.conftest import make_record


def claims(redis: Redis, store: VideoStore, *models: str, worker: str = "w1") -> Claims:
    return Claims(redis, store, models or ("tiny",), worker)


def take(claims: Claims, count: int) -> list[VideoRecord]:
    taken = [claims.take() for _ in range(count)]
    return [claim.record for claim in taken if claim is not None]


def test_a_low_priority_is_late_but_never_forgotten(redis: Redis, store: VideoStore) -> None:
    store.create(*[make_record(priority="high") for _ in range(30)])
    store.create(*[make_record(priority=priority) for priority in ("normal", "low", "normal", "low")])
    taken = [record.request.priority for record in take(claims(redis, store), 16)]
    assert taken.count("high") == 12
    assert (taken.index("normal"), taken.index("low")) == (3, 7)


def test_owners_take_turns(redis: Redis, store: VideoStore) -> None:
    def queue_up(owner: str, count: int) -> None:
        store.create(*[make_record().model_copy(update={"owner": owner, "cost": 10}) for _ in range(count)])

    queue_up("many", 10)
    queue_up("one", 1)
    assert "one" in [record.owner for record in take(claims(redis, store), 2)]
    assert len(take(claims(redis, store, worker="w2"), 20)) == 9


def quarantine(redis: Redis, store: VideoStore, count: int) -> list[VideoRecord]:
    records = [make_record() for _ in range(count)]
    store.create(*records)
    for record in take(claims(redis, store), count):
        store.start(record.id, "w1")
        store.requeue(record.id, "w1", changes={"alone": True, "quarantine": "w1:0"})
    return records


def test_every_second_claim_may_be_in_quarantine_and_high_priority_goes_first(redis: Redis, store: VideoStore) -> None:
    quarantine(redis, store, 4)
    store.create(*[make_record(priority=priority) for priority in ("normal", "high", "normal")])
    taken = take(claims(redis, store), 10)
    lanes = ["quarantine" if record.alone else record.request.priority for record in taken]
    assert lanes == ["high", "quarantine", "normal", "quarantine", "normal", "quarantine", "quarantine"]


def test_a_worker_can_leave_the_quarantine_to_others(redis: Redis, store: VideoStore) -> None:
    quarantine(redis, store, 1)
    own = claims(redis, store)
    assert own.take(lambda record: False) is None
    assert own.anything_waiting()
    assert own.take() is not None


def test_high_priority_does_not_starve_the_quarantine(redis: Redis, store: VideoStore) -> None:
    quarantine(redis, store, 2)
    store.create(*[make_record(priority="high") for _ in range(20)])
    assert [record.alone for record in take(claims(redis, store), 12)].count(True) == 2


def test_many_taking_at_once_never_take_the_same(redis: Redis, store: VideoStore) -> None:
    store.create(*[make_record() for _ in range(20)])
    workers = [claims(redis, store, worker=f"w{index}") for index in range(4)]
    taken = [record.id for _ in range(6) for worker in workers for record in take(worker, 1)]
    assert len(taken) == len(set(taken)) == 20
    assert not workers[0].anything_waiting()
