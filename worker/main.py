"""The process of a worker: loads the models, runs a worker until a signal ends it, and withdraws the models."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Sequence

import torch
from redis import Redis
from redis.exceptions import RedisError

from jobs.cards import withdraw
from jobs.connection import check_certificate, connect, wait_until_loaded
from jobs.queue.redis_allow_oom import AllowOomRedis
from jobs.settings import Settings
from jobs.telemetry.tracing import start_tracing
from worker.build import build_worker
from worker.device import choose_devices, choose_dtype, choose_text_place, describe_fast_path
from worker.engine.ranks.rank_group import RankGroup
from worker.errors import StartupError
from worker.loading.adapter_watch import AdapterWatch
from worker.loading.checkpoint_watch import CheckpointWatch
from worker.loading.model_cache import ModelCache, load_models
from worker.metrics import Meter
from worker.output.provenance import Provenance, provenance_of

logger = logging.getLogger(__name__)

_MAX_WARM_UP_SECONDS = 3.0  # for each model
_REDIS_RETRY_SECONDS = 1.0


def run_worker(settings: Settings, burst: bool = False, name: str | None = None) -> None:
    """Load every checkpoint, then process jobs until SIGTERM or SIGINT, with `burst` until the queues are empty.

    Args:
        name: Must differ from the names of all other workers, dead ones included. Default: a new name.

    Raises:
        StartupError: For settings with which no worker can run.
        RedisCertificateError: When the certificate of the Redis server is not trusted.
    """
    if settings.redis_url is None:
        raise StartupError("redis_url is not set: a worker needs a Redis server, set REDIS_URL")
    provenance = provenance_of(settings)
    redis = connect(settings.redis_url, settings.redis_timeout_seconds)
    devices = choose_devices(settings.device, settings.gpus_per_video)
    with contextlib.ExitStack() as ranks:
        group = ranks.enter_context(_start_ranks(settings, devices)) if len(devices) > 1 else None
        _run(settings, redis, devices[0], group, provenance, burst, name)


def _start_ranks(settings: Settings, devices: Sequence[torch.device]) -> RankGroup:
    """They start while this process loads models."""
    if devices[0].type == "cuda":
        torch.cuda.set_device(devices[0])
    return RankGroup(devices, settings.step_timeout_seconds, cuda_graphs=settings.fast == "auto")


def _run(
    settings: Settings,
    redis: Redis,
    device: torch.device,
    ranks: RankGroup | None,
    provenance: Provenance,
    burst: bool,
    name: str | None,
) -> None:
    dtype = choose_dtype(settings.dtype, device)
    fast = settings.fast == "auto"
    logger.info("fast path: %s", describe_fast_path(fast, device, dtype))
    text_place = choose_text_place(settings.text_encoder_device, device)
    models = load_models(
        settings.checkpoints, device, dtype, settings.max_model_bytes, fast=fast, text_place=text_place
    )
    _wait_for_redis(redis)
    meter = Meter(AllowOomRedis.over(redis), device, start_tracing(settings.otlp_endpoint, "framedit-worker"))
    name = name or _new_name()
    watch = CheckpointWatch(settings.checkpoints, models.cards)
    adapters = AdapterWatch(settings.adapters, settings.checkpoints, settings.max_adapter_bytes)
    adapters.poll(models.cards, is_start=True)
    worker = build_worker(
        settings,
        redis,
        models,
        name,
        meter,
        burst,
        watch=watch,
        adapter_watch=adapters,
        provenance=provenance,
        ranks=ranks,
    )
    if ranks is not None:
        ranks.join()
    worker.warm_up(_MAX_WARM_UP_SECONDS)
    logger.info("worker ready: %s on %s", ", ".join(models.cards), device)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, worker.request_stop)
    try:
        worker.run()
    finally:
        worker.sign_off()
        _withdraw(redis, models, name, meter)
        meter.close()
        redis.close()


def _new_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _wait_for_redis(redis: Redis) -> None:
    while True:
        try:
            wait_until_loaded(redis)
            return
        except RedisError as error:
            check_certificate(error)
            logger.warning("Redis is not available, retrying in %.1f s: %s", _REDIS_RETRY_SECONDS, error)
            time.sleep(_REDIS_RETRY_SECONDS)


def _withdraw(redis: Redis, models: ModelCache, name: str, meter: Meter) -> None:
    try:
        meter.publish(name, ttl_seconds=1)
        for model in models.cards:
            withdraw(redis, model, name)
    except RedisError as error:
        logger.warning("model announcements not withdrawn, they expire by themselves: %s", error)
