"""Metrics of the server and the workers, and their totals for Prometheus.

Each process counts for itself and publishes its counters to Redis, where a script adds the change since its last
publication to the totals of the deployment. So any API process can answer for all, a counter never decreases when a
process ends or starts, and a publication that is repeated because its answer was lost counts once. The state of queues
and workers is read when it is requested.
"""

import json
import secrets
import threading
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Iterable
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.samples import Sample
from redis import Redis

from jobs import redis_keys
from jobs.cards import known_models, workers_alive
from jobs.lua import ALLOW_OOM, read_lua

# Longer than any outage of Redis after which a process would publish again.
_PROCESS_TTL_SECONDS = 7 * 24 * 3600

_PUBLISH = ALLOW_OOM + read_lua(__file__, "publish")

_STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters and histograms of one process; server and worker each use some of them.

    Ended videos are not counted here but by the script that ends them (`ended`), once each.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        Counter(
            "framedit_videos_total",
            "Videos that have ended, by how: completed or failed (cancelled ones among them)",
            ["model", "status"],
            registry=registry,
        )
        Counter(
            "framedit_video_failures_total", "Videos that failed, by error code", ["model", "code"], registry=registry
        )
        self.queue_wait = Histogram(
            "framedit_queue_wait_seconds", "From accepted to first started", buckets=_LONG_SECONDS, registry=registry
        )
        self.video_seconds = Histogram(
            "framedit_video_seconds", "From accepted to completed", ["model"], buckets=_LONG_SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "framedit_stage_seconds",
            "Work on one video, by stage: denoise, decode, encode",
            ["stage"],
            buckets=_LONG_SECONDS,
            registry=registry,
        )
        self.step_seconds = Histogram(
            "framedit_denoise_step_seconds",
            "One forward pass of a model, by the rows of its batch",
            ["model", "batch"],
            buckets=_STEP_SECONDS,
            registry=registry,
        )
        self.batch_rows = Histogram("framedit_batch_rows", "Rows of a forward pass", buckets=_ROWS, registry=registry)
        self.http_requests = Counter(
            "framedit_http_requests_total", "Requests answered", ["route", "method", "code"], registry=registry
        )
        self.http_seconds = Histogram(
            "framedit_http_request_seconds",
            "From a request to the end of its answer; of an event stream, how long it was open",
            ["route", "method"],
            buckets=_HTTP_SECONDS,
            registry=registry,
        )


class Publisher:
    """Publishes the counters of a process to the totals in Redis."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics
        self._key = redis_keys.process_metrics(secrets.token_hex(8))
        self._published: dict[str, float] = {}
        self._script = redis.register_script(_PUBLISH)
        self._lock = threading.Lock()

    def publish(self) -> None:
        """Publish what has changed. Raises `RedisError`; the next call then publishes it as well."""
        with self._lock:  # an older count that arrives after a newer one would decrease the totals
            self._publish()

    def _publish(self) -> None:
        samples = {
            _field(sample): sample.value
            for family in self._metrics.registry.collect()
            for sample in family.samples
            if not sample.name.endswith("_created")
        }
        changed = {field: value for field, value in samples.items() if self._published.get(field, 0) != value}
        if changed:
            pairs = (part for field, value in changed.items() for part in (field, repr(value)))
            self._script(keys=[redis_keys.METRICS, self._key], args=[_PROCESS_TTL_SECONDS, *pairs])
            self._published |= changed


def ended(model: str, status: str, code: str | None = None) -> list[str]:
    """Return the fields of the totals that count an ended video, for the script that ends it."""
    fields = [_field(Sample("framedit_videos_total", {"model": model, "status": status}, 1))]
    if code is not None:
        fields.append(_field(Sample("framedit_video_failures_total", {"model": model, "code": code}, 1)))
    return fields


def report_device(redis: Redis, worker: str, memory_bytes: int, ttl_seconds: int) -> None:
    """Publish the device memory of a worker. Repeat it well within `ttl_seconds`."""
    redis.set(redis_keys.worker_metrics(worker), memory_bytes, ex=ttl_seconds)


def collect(redis: Redis) -> list[Metric]:
    """Return all metrics of the deployment, for Prometheus. Raises `RedisError`."""
    return [*_totals(redis), *_present(redis)]


def _totals(redis: Redis) -> Iterable[Metric]:
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for raw, value in cast(dict[bytes, bytes], redis.hgetall(redis_keys.METRICS)).items():
        name, labels = json.loads(raw)
        by_name[name].append(Sample(name, labels, float(value)))
    for family in Metrics().registry.collect():
        names = [family.name + suffix for suffix in ("_total", "_bucket", "_count", "_sum")]
        family.samples = sorted((sample for name in names for sample in by_name[name]), key=_sort_key)
        yield family


def _present(redis: Redis) -> Iterable[Metric]:
    models = known_models(redis)
    depth = GaugeMetricFamily("framedit_queue_depth", "Videos that wait", labels=["model"])
    alive = GaugeMetricFamily("framedit_workers_alive", "Workers that serve a model", labels=["model"])
    memory = GaugeMetricFamily(
        "framedit_device_memory_bytes", "Memory that a worker holds on its device", labels=["worker"]
    )
    waiting = _waiting(redis)
    for model, (_, count) in models.items():
        depth.add_metric([model], waiting.get(model, 0))
        alive.add_metric([model], count)
    workers = sorted(set[str]().union(*(workers_alive(redis, model) for model in models)))
    for worker in workers:
        held = cast(bytes | None, redis.get(redis_keys.worker_metrics(worker)))
        if held is not None:
            memory.add_metric([worker], float(held))
    return depth, alive, memory


def _waiting(redis: Redis) -> Counts[str]:
    """Return how many videos wait, by model: in the queues of every priority and owner."""
    prefix = redis_keys.queue("")
    names = (raw.decode().removeprefix(prefix) for raw in cast(set[bytes], redis.smembers(redis_keys.RQ_QUEUES)))
    queues = [name for name in names if redis_keys.is_video_queue(name)]
    with redis.pipeline(transaction=False) as pipe:
        for name in queues:
            pipe.llen(redis_keys.queue(name))
        lengths = pipe.execute() if queues else []
    counts = Counts[str]()
    for name, length in zip(queues, lengths, strict=True):
        counts[redis_keys.model_of(name)] += length
    return counts


def _field(sample: Sample) -> str:
    return json.dumps([sample.name, sample.labels], sort_keys=True)


def _sort_key(sample: Sample) -> tuple[str, bool, float, str]:
    """Return the sort key of a sample: by series, buckets from small to large before count and sum."""
    labels = {name: value for name, value in sample.labels.items() if name != "le"}
    bound = sample.labels.get("le")
    return json.dumps(labels, sort_keys=True), bound is None, float(bound or 0), sample.name
