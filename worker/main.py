"""Starting a worker: its device, its models, its place at the queues."""

import logging
import os
import secrets
import socket
import time
from functools import partial

from redis import Redis
from redis.exceptions import RedisError

from jobs.artifacts import ArtifactStore
from jobs.cards import announce, withdraw
from jobs.connection import connect
from jobs.queue import TASK
from jobs.settings import Settings
from jobs.store import VideoStore
from jobs.tracing import start_tracing
from worker.device import choose_device, choose_dtype
from worker.errors import StartupError
from worker.maintenance import Maintenance
from worker.metrics import Meter
from worker.queue_worker import VideoWorker
from worker.resident import ResidentModels, load_models
from worker.tasks import Workplace, generate

logger = logging.getLogger(__name__)


def run_worker(settings: Settings, burst: bool = False, name: str | None = None) -> None:
    """Load every checkpoint, then make videos until SIGTERM or SIGINT, with `burst` until the queues are empty.

    `name` must be unlike that of any other worker, dead ones included; left out, one is drawn. Raises `StartupError`
    for settings under which no worker can run.
    """
    if settings.redis_url is None:
        raise StartupError("a worker needs a Redis server: redis_url is not set")
    redis = connect(settings.redis_url, settings.redis_timeout_seconds)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    models = load_models(settings.checkpoints, device, dtype, settings.max_model_bytes)
    _wait_for(redis)
    meter = Meter(redis, device, start_tracing(settings.otlp_endpoint, "framedit-worker"))
    worker = build_worker(settings, redis, models, name or _new_name(), meter)
    logger.info("ready: %s on %s", ", ".join(models), device)
    try:
        worker.work(burst=burst)
    finally:
        _sign_off(redis, models, worker.name, meter)
        meter.close()
        redis.close()


def build_worker(settings: Settings, redis: Redis, models: ResidentModels, name: str, meter: Meter) -> VideoWorker:
    """A worker over loaded models, announced and with what its dead colleagues left brought back on its way."""
    store = VideoStore(redis, settings.max_attempts, settings.video_ttl_seconds)
    maintenance = Maintenance(redis, store, settings.max_attempts)

    def on_beat() -> None:
        for card in models.cards.values():
            announce(redis, card, name, settings.worker_ttl_seconds)
        meter.publish(name, settings.worker_ttl_seconds)
        maintenance.run()

    place = Workplace(
        worker=name,
        models=models,
        store=store,
        artifacts=ArtifactStore(
            settings.artifacts, settings.artifact_retry_seconds, give_up=lambda: worker.stop_requested
        ),
        max_attempts=settings.max_attempts,
        stopping=lambda: worker.stop_requested,
        meter=meter,
    )
    worker = VideoWorker(redis, list(models), name, {TASK: partial(generate, place)}, on_beat)
    return worker


def _new_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _wait_for(redis: Redis) -> None:
    while True:
        try:
            redis.ping()
            return
        except RedisError as error:
            logger.warning("Redis is away, trying again: %s", error)
            time.sleep(1.0)


def _sign_off(redis: Redis, models: ResidentModels, name: str, meter: Meter) -> None:
    try:
        meter.publish(name, ttl_seconds=1)
        for model in models:
            withdraw(redis, model, name)
    except RedisError as error:
        logger.warning("could not withdraw: %s", error)
