"""Which job is next."""

from redis import Redis

from jobs.records import VideoRecord
from jobs.store import VideoStore
from tests.worker.conftest import make_record
from worker.claims import Claims


def claims(redis: Redis, store: VideoStore, *models: str, worker: str = "w1") -> Claims:
    return Claims(redis, store, models or ("tiny",), worker)


def take(claims: Claims, count: int) -> list[VideoRecord]:
    taken = [claims.take(idle=True) for _ in range(count)]
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


def test_what_is_made_alone_waits_for_an_idle_worker_and_nothing_else_is_taken(redis: Redis, store: VideoStore) -> None:
    suspect, waiting = make_record(), make_record()
    store.create(suspect, waiting)
    mine = claims(redis, store)
    [taken] = take(mine, 1)
    store.start(taken.id, "w1")
    store.requeue(taken.id, "w1", alone=True)
    assert mine.take(idle=False) is None
    claim = mine.take(idle=True)
    assert claim is not None
    assert (claim.record.id, claim.record.alone) == (suspect.id, True)
    assert [record.id for record in take(mine, 2)] == [waiting.id]


def test_many_taking_at_once_never_take_the_same(redis: Redis, store: VideoStore) -> None:
    store.create(*[make_record() for _ in range(20)])
    workers = [claims(redis, store, worker=f"w{index}") for index in range(4)]
    taken = [record.id for _ in range(6) for worker in workers for record in take(worker, 1)]
    assert len(taken) == len(set(taken)) == 20
    assert not workers[0].anything_waiting()
