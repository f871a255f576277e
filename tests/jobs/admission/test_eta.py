"""Places, waits and ends, from what waits and how fast the workers are."""

import pytest
from redis import Redis

from jobs.admission.admission import check_wait
from jobs.admission.cost import video_cost
from jobs.admission.eta import forecast
from jobs.admission.worker_load import Remaining, WorkerLoad, publish_load, read_loads, withdraw_load
from jobs.cards import ModelCard
from jobs.errors import OverloadedError, TooManyQueuedError, TryLaterError
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore
from tests.jobs.making import make_record, make_request

MODEL = "tiny-text"


def record_of(cost: int = 100, owner: str | None = None, **changes: object) -> VideoRecord:
    return make_record(**changes).model_copy(update={"cost": cost, "owner": owner})


def speed(redis: Redis, rate: float, worker: str = "w1", free_slots: int = 0, **remaining: float) -> None:
    left = {video_id: Remaining(model=MODEL, cost=cost) for video_id, cost in remaining.items()}
    load = WorkerLoad(cost_per_second={MODEL: rate}, remaining=left, free_slots=free_slots)
    publish_load(redis, worker, load, ttl_seconds=60)


def positions(redis: Redis, *records: VideoRecord) -> list[int | None]:
    forecasts = forecast(redis, records)
    return [forecasts[record.id].queue_position for record in records]


def etas(redis: Redis, *records: VideoRecord) -> list[float | None]:
    forecasts = forecast(redis, records)
    return [forecasts[record.id].eta_seconds for record in records]


@pytest.mark.parametrize(("guidance_scale", "rows"), [(7.5, 2), (1.0, 1), (0.0, 1)])
def test_a_cost_is_steps_times_rows_times_tokens(text_card: ModelCard, guidance_scale: float, rows: int) -> None:
    card = text_card.model_copy(update={"tokens_per_frame": 24})
    request = make_request(num_inference_steps=20, num_frames=16, guidance_scale=guidance_scale)
    assert video_cost(request, card) == 20 * rows * 16 * 24


def test_an_older_card_s_tokens_are_guessed_from_its_size(text_card: ModelCard) -> None:
    assert video_cost(make_request(num_inference_steps=1, num_frames=1, guidance_scale=1.0), text_card) == 6 * 4


def test_places_count_the_jobs_that_go_before(redis: Redis, store: VideoStore) -> None:
    records = [record_of(priority=priority) for priority in ("normal", "low", "normal", "high")]
    other_model = record_of(model="other")
    store.create(*records, other_model)
    assert positions(redis, *records, other_model) == [2, 4, 3, 1, 1]


def test_places_of_two_owners_alternate(redis: Redis, store: VideoStore) -> None:
    mine, yours = [record_of(owner="a") for _ in range(3)], record_of(owner="b")
    store.create(*mine, yours)
    assert positions(redis, *mine, yours) == [1, 3, 4, 2]


def test_quarantine_comes_after_high_priority(redis: Redis, store: VideoStore) -> None:
    suspect, high, normal = record_of(priority="low"), record_of(priority="high"), record_of()
    store.create(suspect, high, normal)
    store.start(suspect.id, "w1")
    store.requeue(suspect.id, "w1", changes={"alone": True})
    assert positions(redis, store.get(suspect.id), high, normal) == [2, 1, 3]


def test_an_end_is_that_of_the_file_and_not_of_the_last_step(redis: Redis, store: VideoStore) -> None:
    """The mean of the workers for queued videos, the own worker's for running ones. Workers that serve another model
    or have finished no video do not count."""
    waiting, started = record_of(cost=100), record_of(cost=100)
    store.create(waiting, started)
    record = store.start(started.id, "w1")
    assert record is not None
    for worker, finishing in (("w1", {MODEL: 4.0}), ("w2", {MODEL: 2.0}), ("w3", {}), ("w4", {"other": 100.0})):
        load = WorkerLoad(cost_per_second={MODEL: 10.0}, finishing_seconds=finishing)
        publish_load(redis, worker, load, ttl_seconds=60)
    assert etas(redis, record, waiting) == [100 / 10 + 4, 100 / 40 + 3]


def test_ended_and_started_videos_have_no_place(redis: Redis, store: VideoStore) -> None:
    started, ended = record_of(), record_of()
    store.create(started, ended)
    record = store.start(started.id, "w1")
    assert record is not None
    assert positions(redis, record) == [None]
    assert forecast(redis, [store.cancel(ended.id)]) == {}


def test_without_a_measured_speed_there_is_no_eta(redis: Redis, store: VideoStore) -> None:
    record = record_of()
    store.create(record)
    assert etas(redis, record) == [None]
    speed(redis, 10)
    assert etas(redis, record) == [10]
    withdraw_load(redis, "w1")
    assert etas(redis, record) == [None]


def test_the_eta_counts_running_and_queued_videos_before_it(redis: Redis, store: VideoStore) -> None:
    first, second = record_of(cost=100), record_of(cost=100)
    store.create(first, second)
    speed(redis, 10, running=50)
    speed(redis, 10, worker="w2")
    assert etas(redis, first, second) == [7.5, 12.5]


def test_a_running_video_shares_its_worker(redis: Redis, store: VideoStore) -> None:
    record = record_of(cost=100)
    store.create(record)
    store.start(record.id, "w1")
    store.progress(record.id, 10, 20, "w1")
    speed(redis, 10, shorter=20, longer=1000)
    assert etas(redis, store.get(record.id)) == [5 + 2 + 5]


def test_models_of_one_worker_share_its_time(redis: Redis, store: VideoStore) -> None:
    record, other = record_of(cost=100), record_of(cost=1000, model="other")
    store.create(record, other)
    publish_load(redis, "w1", WorkerLoad(cost_per_second={MODEL: 10, "other": 100}), ttl_seconds=60)
    assert etas(redis, record, other) == [20, 20]
    speed(redis, 10)
    assert etas(redis, record) == [10]


def test_a_silent_worker_s_load_is_forgotten(redis: Redis) -> None:
    publish_load(redis, "w1", WorkerLoad(cost_per_second={}), ttl_seconds=0)
    assert read_loads(redis) == {}
    assert not redis.exists("framedit:loads")


def test_an_unlimited_or_unknown_wait_refuses_no_request(redis: Redis, store: VideoStore) -> None:
    store.create(*[record_of(cost=10_000) for _ in range(3)])
    check_wait(redis, [record_of()], max_wait_seconds=1)
    speed(redis, 10)
    check_wait(redis, [record_of()], max_wait_seconds=None)


def test_a_free_slot_means_no_wait(redis: Redis) -> None:
    speed(redis, 10, free_slots=1, running=10_000)
    check_wait(redis, [record_of()], max_wait_seconds=1)
    speed(redis, 10, free_slots=0, running=10_000)
    with pytest.raises(OverloadedError, match="about 1000 s, and may be at most 1 s; try again in 999 s"):
        check_wait(redis, [record_of()], max_wait_seconds=1)


def test_every_video_of_a_request_counts(redis: Redis) -> None:
    speed(redis, 10)
    records = [record_of(cost=100) for _ in range(3)]
    check_wait(redis, records[:2], max_wait_seconds=15)
    with pytest.raises(TryLaterError) as caught:
        check_wait(redis, records, max_wait_seconds=15)
    assert caught.value.retry_after_seconds == 5


def test_an_owners_long_queue_and_a_busy_server_have_different_errors(redis: Redis, store: VideoStore) -> None:
    store.create(*[record_of(cost=100, owner="greedy") for _ in range(10)])
    speed(redis, 10)
    with pytest.raises(TooManyQueuedError):
        check_wait(redis, [record_of(owner="greedy")], max_wait_seconds=30)
    check_wait(redis, [record_of(owner="modest")], max_wait_seconds=30)
    with pytest.raises(OverloadedError):
        check_wait(redis, [record_of(owner="modest")], max_wait_seconds=5)
