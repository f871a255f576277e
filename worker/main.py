"""Starting a worker: its device, its models, its place at the queues."""

import logging
import os
import secrets
import signal
import socket
import time

from redis import Redis
from redis.exceptions import RedisError

from jobs.artifacts import ArtifactStore
from jobs.cards import announce, withdraw
from jobs.connection import check_certificate, connect, wait_until_loaded
from jobs.settings import Settings
from jobs.store import VideoStore
from jobs.tracing import start_tracing
from worker.claims import Claims
from worker.desk import Desk, DeskSettings
from worker.device import choose_device, choose_dtype, choose_max_batch_rows
from worker.engine import Engine, EngineSettings
from worker.errors import StartupError
from worker.finishing import Finisher
from worker.loop import Loop
from worker.maintenance import Maintenance
from worker.metrics import Meter
from worker.policy import Policy
from worker.previews import Previews
from worker.queue_worker import VideoWorker
from worker.resident import ResidentModels, load_models
from worker.resuming import Resuming
from worker.tasks import Workplace

logger = logging.getLogger(__name__)

# For each model, at most.
_WARM_UP_SECONDS = 3.0


def run_worker(settings: Settings, burst: bool = False, name: str | None = None) -> None:
    """Load every checkpoint, then make videos until SIGTERM or SIGINT, with `burst` until the queues are empty.

    `name` must be unlike that of any other worker, dead ones included; left out, one is drawn. Raises `StartupError`
    for settings under which no worker can run, and `RedisCertificateError` for a Redis whose certificate is not
    accepted.
    """
    if settings.redis_url is None:
        raise StartupError("a worker needs a Redis server: redis_url is not set")
    redis = connect(settings.redis_url, settings.redis_timeout_seconds)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    models = load_models(settings.checkpoints, device, dtype, settings.max_model_bytes)
    _wait_for(redis)
    meter = Meter(redis, device, start_tracing(settings.otlp_endpoint, "framedit-worker"))
    name = name or _new_name()
    worker = build_worker(settings, redis, models, name, meter, burst)
    worker.warm_up(_WARM_UP_SECONDS)
    logger.info("ready: %s on %s", ", ".join(models), device)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, worker.desk.worker.request_stop)
    try:
        worker.run()
    finally:
        worker.desk.sign_off()
        _sign_off(redis, models, name, meter)
        meter.close()
        redis.close()


def build_worker(
    settings: Settings, redis: Redis, models: ResidentModels, name: str, meter: Meter, burst: bool = False
) -> Loop:
    """A worker over loaded models: announced, and with what its dead colleagues left brought back on its way."""
    store = VideoStore(redis, settings.max_attempts, settings.video_ttl_seconds)
    maintenance = Maintenance(redis, store, settings.max_attempts)
    max_batch_rows = choose_max_batch_rows(settings.max_batch_rows, choose_device(settings.device))
    engine = Engine(
        models,
        Policy(max_rows=max_batch_rows, margin=settings.batch_margin),
        EngineSettings(max_batch_rows, settings.max_seats, settings.deterministic),
        on_pass=meter.passed,
    )

    def on_beat() -> None:
        for card in models.cards.values():
            announce(redis, card, name, settings.worker_ttl_seconds)
        meter.publish(name, settings.worker_ttl_seconds)
        maintenance.run()

    artifacts = ArtifactStore(settings.artifacts, settings.artifact_retry_seconds, give_up=lambda: desk.is_handing_back)
    finisher = Finisher(
        lambda request_id, folder: desk.store_files(request_id, folder),
        room_patience_seconds=settings.artifact_retry_seconds,
        give_up=lambda: desk.is_handing_back,
    )
    desk = Desk(
        redis,
        VideoWorker(redis, list(models), name),
        Workplace(name, store, artifacts, settings.max_attempts, meter),
        Claims(redis, store, list(models), name),
        DeskSettings(
            settings.max_seats,
            max_batch_rows,
            settings.drain_seconds,
            settings.step_timeout_seconds,
            settings.worker_ttl_seconds,
        ),
        engine.cost_per_second,
        lambda: finisher.full,
        on_beat,
        on_hang=_end_at_once,
        burst=burst,
    )
    resuming = Resuming(settings.resume_seconds, settings.resume_max_bytes)
    return Loop(desk, engine, models, finisher, Previews(), resuming)


def _end_at_once() -> None:
    """A step that hangs cannot be interrupted, only its process be ended; who started it starts it again."""
    logger.critical("a step hangs: ending, so that a new worker can take this one's place")
    os._exit(1)


def _new_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _wait_for(redis: Redis) -> None:
    while True:
        try:
            wait_until_loaded(redis)
            return
        except RedisError as error:
            check_certificate(error)
            logger.warning("Redis is away, trying again: %s", error)
            time.sleep(1.0)


def _sign_off(redis: Redis, models: ResidentModels, name: str, meter: Meter) -> None:
    try:
        meter.publish(name, ttl_seconds=1)
        for model in models:
            withdraw(redis, model, name)
    except RedisError as error:
        logger.warning("could not withdraw: %s", error)
