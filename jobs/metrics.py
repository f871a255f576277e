"""What the server and the workers measure, and how all of them come to be one page for Prometheus.

Every process counts for itself and publishes what it has counted to Redis, where a script adds the change since its
last publication to totals that belong to the deployment. So any API process answers for all of them, a counter never
goes back when a process ends or starts, and a publication that is repeated because its answer was lost counts once.
What can be read where it lies (the queues, the workers) is read when it is asked for.
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

from jobs import queue
from jobs.cards import known_models, workers_alive

# Another number for other buckets: those of before cannot be added to.
TOTALS_KEY = "framedit:metrics:1"
_PROCESS_KEY = "framedit:metrics:1:process:{process}"
_WORKER_KEY = "framedit:metrics:worker:{worker}"
# Longer than any outage of Redis that a process would live through and then publish again.
_PROCESS_TTL_SECONDS = 7 * 24 * 3600

# KEYS: totals, what this process has published. ARGV: seconds to keep the latter, then sample, value, ...
_PUBLISH = """
for i = 2, #ARGV, 2 do
  local change = tonumber(ARGV[i + 1]) - tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or '0')
  if change ~= 0 then
    redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], string.format('%.17g', change))
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  end
end
redis.call('EXPIRE', KEYS[2], ARGV[1])
"""

_STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_HTTP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LONG_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The counters and histograms of one process; a server and a worker each use their part of them.

    The videos that have ended are not counted here but by the script that ends them (`ended`), once each.
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
    """Takes what a process counts to the totals in Redis."""

    def __init__(self, redis: Redis, metrics: Metrics) -> None:
        self._redis = redis
        self._metrics = metrics
        self._key = _PROCESS_KEY.format(process=secrets.token_hex(8))
        self._published: dict[str, float] = {}
        self._script = redis.register_script(_PUBLISH)
        self._lock = threading.Lock()

    def publish(self) -> None:
        """Doing it twice is harmless. Raises `RedisError`; what was counted is then published with the next."""
        with self._lock:  # an older count that arrives after a newer one would turn the totals back
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
            self._script(keys=[TOTALS_KEY, self._key], args=[_PROCESS_TTL_SECONDS, *pairs])
            self._published |= changed


def ended(model: str, status: str, code: str | None = None) -> list[str]:
    """The fields of the totals that count a video which ends like this, for the script that ends it."""
    fields = [_field(Sample("framedit_videos_total", {"model": model, "status": status}, 1))]
    if code is not None:
        fields.append(_field(Sample("framedit_video_failures_total", {"model": model, "code": code}, 1)))
    return fields


def report_device(redis: Redis, worker: str, memory_bytes: int, ttl_seconds: int) -> None:
    """What a worker's device holds now. To be repeated well within `ttl_seconds`."""
    redis.set(_WORKER_KEY.format(worker=worker), memory_bytes, ex=ttl_seconds)


def collect(redis: Redis) -> list[Metric]:
    """Everything that the deployment measures, as Prometheus is to see it. Raises `RedisError`."""
    return [*_totals(redis), *_present(redis)]


def _totals(redis: Redis) -> Iterable[Metric]:
    by_name: dict[str, list[Sample]] = defaultdict(list)
    for raw, value in cast(dict[bytes, bytes], redis.hgetall(TOTALS_KEY)).items():
        name, labels = json.loads(raw)
        by_name[name].append(Sample(name, labels, float(value)))
    for family in Metrics().registry.collect():
        names = [family.name + suffix for suffix in ("_total", "_bucket", "_count", "_sum")]
        family.samples = sorted((sample for name in names for sample in by_name[name]), key=_place)
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
        held = cast(bytes | None, redis.get(_WORKER_KEY.format(worker=worker)))
        if held is not None:
            memory.add_metric([worker], float(held))
    return depth, alive, memory


def _waiting(redis: Redis) -> Counts[str]:
    """How many videos wait, by model: in the queues of every priority and of every owner."""
    names = [waiting.name for waiting in queue.all_queues(redis)]
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(queue.PREFIX + name)
        lengths = pipe.execute() if names else []
    counts = Counts[str]()
    for name, length in zip(names, lengths, strict=True):
        counts[queue.parse_name(name)[0]] += length
    return counts


def _field(sample: Sample) -> str:
    return json.dumps([sample.name, sample.labels], sort_keys=True)


def _place(sample: Sample) -> tuple[str, bool, float, str]:
    """Series after series, each with its buckets from small to large before its count and its sum."""
    labels = {name: value for name, value in sample.labels.items() if name != "le"}
    bound = sample.labels.get("le")
    return json.dumps(labels, sort_keys=True), bound is None, float(bound or 0), sample.name
