from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cli.processes.embedded_redis import EmbeddedRedis
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from jobs.telemetry.metrics import Metrics, Publisher, collect, report_device
from jobs.videos.record import Artifact, Timings
from jobs.videos.store import VideoStore
from tests.jobs.making import make_record


def value(families: list[Metric], sample: str, **labels: str) -> float | None:
    found = [s.value for family in families for s in family.samples if s.name == sample and s.labels == labels]
    assert len(found) < 2, "the same series twice"
    return found[0] if found else None


def waited(redis: Redis) -> float | None:
    return value(collect(redis), "framedit_queue_wait_seconds_count")


def test_counts_of_several_processes_are_added(redis: Redis) -> None:
    for seconds in (0.3, 40.0):
        metrics = Metrics()
        metrics.queue_wait.observe(seconds)
        metrics.http_requests.labels("/v1/videos", "POST", "200").inc()
        Publisher(redis, metrics).publish()
    families = collect(redis)
    assert value(families, "framedit_http_requests_total", route="/v1/videos", method="POST", code="200") == 2
    assert value(families, "framedit_queue_wait_seconds_bucket", le="0.5") == 1
    assert value(families, "framedit_queue_wait_seconds_bucket", le="+Inf") == 2
    assert value(families, "framedit_queue_wait_seconds_sum") == pytest.approx(40.3)


def test_a_counter_does_not_go_back_when_its_process_ends(redis: Redis) -> None:
    first = Metrics()
    first.queue_wait.observe(1)
    Publisher(redis, first).publish()
    Publisher(redis, Metrics()).publish()  # another takes its place, from nought
    assert waited(redis) == 1


def test_a_publication_whose_answer_was_lost_counts_once(redis: Redis) -> None:
    metrics = Metrics()
    publisher = Publisher(redis, metrics)
    metrics.queue_wait.observe(1)
    publisher.publish()
    publisher._published.clear()  # as if the answer had not come
    metrics.queue_wait.observe(1)
    publisher.publish()
    assert waited(redis) == 2


def test_unpublished_metrics_are_part_of_the_next_publication(tmp_path: Path) -> None:
    database = EmbeddedRedis(tmp_path / "redis")
    metrics = Metrics()
    try:
        with connect(database.start()) as redis:
            publisher = Publisher(redis, metrics)
            metrics.queue_wait.observe(1)
            publisher.publish()
            database.stop()
            metrics.queue_wait.observe(1)
            with pytest.raises(RedisConnectionError):
                publisher.publish()
            database.start()  # with what its append-only file holds
            publisher.publish()
            assert waited(redis) == 2
    finally:
        database.stop()


def test_a_video_that_ends_counts_once_however_often_that_is_said(redis: Redis, store: VideoStore) -> None:
    done, cancelled = make_record(), make_record()
    store.create(done, cancelled)
    store.start(done.id, "w1")
    for _ in range(2):
        assert store.complete(done.id, {"video": Artifact(num_bytes=1, sha256="0")}, Timings(), "w1")
        store.cancel(cancelled.id)
        store.cancel(done.id)
    families = collect(redis)
    model = done.request.model
    assert value(families, "framedit_videos_total", model=model, status="completed") == 1
    assert value(families, "framedit_videos_total", model=model, status="failed") == 1
    assert value(families, "framedit_video_failures_total", model=model, code="cancelled") == 1


def test_queues_and_workers_are_read_where_they_are(redis: Redis, store: VideoStore, text_card: ModelCard) -> None:
    announce(redis, text_card, "w1", ttl_seconds=600)
    announce(redis, text_card, "w2", ttl_seconds=0)
    report_device(redis, "w1", 123, ttl_seconds=600)
    store.create(make_record(), make_record(priority="high"), make_record().model_copy(update={"owner": "key_1"}))
    families = collect(redis)
    assert value(families, "framedit_queue_depth", model="tiny-text") == 3
    assert value(families, "framedit_workers_alive", model="tiny-text") == 1
    assert value(families, "framedit_device_memory_bytes", worker="w1") == 123
