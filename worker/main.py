"""Builds a worker from the settings and runs it."""

import contextlib
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from redis import Redis
from redis.exceptions import RedisError

from jobs.cards import withdraw
from jobs.connection import check_certificate, connect, wait_until_loaded
from jobs.errors import ArtifactStoreError
from jobs.queue.allow_oom import AllowOomRedis
from jobs.queue.claim import Claims
from jobs.queue.claimed_videos import ClaimedVideos
from jobs.queue.recover import LostVideos, Recovery
from jobs.queue.rq_adapter import VideoWorker
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from jobs.telemetry.tracing import start_tracing
from worker.context import WorkerContext
from worker.device import (
    choose_device,
    choose_devices,
    choose_dtype,
    choose_max_batch_rows,
    choose_text_place,
    describe_fast_path,
)
from worker.dispatch.dispatcher import Dispatcher, DispatcherSettings
from worker.dispatch.pass_reports import PassReports
from worker.dispatch.served_models import ServedModels
from worker.engine.engine import Engine, EngineSettings
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.scheduler import Scheduler
from worker.engine.snapshot_schedule import SnapshotSchedule
from worker.errors import StartupError
from worker.loading.adapter_cache import AdapterCache
from worker.loading.adapter_watch import AdapterWatch
from worker.loading.checkpoint_watch import CheckpointWatch
from worker.loading.loader import Loader
from worker.loading.model_cache import ModelCache, load_model, load_models
from worker.loading.model_changes import ModelChanges
from worker.loading.model_loads import ModelLoads
from worker.loop import Loop
from worker.messages import (
    CloseFinisher,
    CloseLoader,
    ClosePreparer,
    DispatcherMessage,
    FinisherMessage,
    Inbox,
    LoaderMessage,
    LoopMessage,
    PreparerMessage,
)
from worker.metrics import Meter
from worker.output.artifact_upload import upload_artifacts
from worker.output.finisher import Finisher
from worker.output.previews import Previews
from worker.output.provenance import DEFAULT_PROVENANCE, Provenance, provenance_of
from worker.output.retry import Retry
from worker.preparer import Preparer
from worker.worker import LoopHelper, Worker

logger = logging.getLogger(__name__)

_MAX_WARM_UP_SECONDS = 3.0  # for each model
_MAX_HEARTBEAT_SECONDS = 1.0
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
    logger.info("worker ready: %s on %s", ", ".join(models), device)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, worker.request_stop)
    try:
        worker.run()
    finally:
        worker.sign_off()
        _withdraw(redis, models, name, meter)
        meter.close()
        redis.close()


def _exit_on_hang() -> None:
    """End the process: a step that hangs cannot be interrupted. The supervisor starts a new worker."""
    logger.critical("denoising step, preparation or model load hangs, worker exits to be restarted")
    os._exit(1)


def build_worker(
    settings: Settings,
    redis: Redis,
    models: ModelCache,
    name: str,
    meter: Meter,
    burst: bool = False,
    on_hang: Callable[[], None] = _exit_on_hang,
    clock: Callable[[], float] = time.monotonic,
    watch: CheckpointWatch | None = None,
    adapter_watch: AdapterWatch | None = None,
    provenance: Provenance = DEFAULT_PROVENANCE,
    ranks: RankGroup | None = None,
) -> Worker:
    """Build a worker over loaded models. It also recovers the videos of dead workers.

    `watch` adds and removes models while the worker runs, and `adapter_watch` their adapters. `provenance` is what
    files state about their origin. `ranks` are other GPUs, which share passes.
    """
    dispatcher_inbox: Inbox[DispatcherMessage] = Inbox()
    loader_inbox: Inbox[LoaderMessage] = Inbox()
    preparer_inbox: Inbox[PreparerMessage] = Inbox()
    loop_inbox: Inbox[LoopMessage] = Inbox()
    finisher_inbox: Inbox[FinisherMessage] = Inbox()
    device = choose_device(settings.device)
    max_batch_rows = choose_max_batch_rows(settings.max_batch_rows, device)

    redis = AllowOomRedis.over(redis)  # a full Redis must not stop the work that empties it
    store = ClaimedVideos(redis, settings.video_ttl_seconds)
    mark = StoreMark(redis)
    artifacts = ArtifactStore(settings.artifacts, settings.artifact_retry_seconds, mark.expected)
    with contextlib.suppress(ArtifactStoreError):  # logged; writes wait until the store is back
        mark.bind(artifacts)
    context = WorkerContext(name, store, artifacts, settings.max_attempts, meter)
    served = ServedModels(redis, name, settings.worker_ttl_seconds, models.cards, loop_inbox, watch, adapter_watch)
    dispatcher = Dispatcher(
        redis,
        VideoWorker(redis, list(models), name),
        context,
        Claims(redis, store, served.ids, name),
        served,
        DispatcherSettings(
            settings.max_slots,
            max_batch_rows,
            settings.drain_seconds,
            settings.step_timeout_seconds,
            settings.worker_ttl_seconds,
            burst,
        ),
        dispatcher_inbox,
        loop_inbox,
        finisher_inbox,
        _Beat(settings, redis, name, meter),
        on_hang,
        clock,
    )
    engine = Engine(
        models,
        Scheduler(max_rows=max_batch_rows, margin=settings.batch_margin),
        EngineSettings(max_batch_rows, settings.max_slots, settings.deterministic, cuda_graphs=settings.fast == "auto"),
        meter.passed,
        clock,
        PassReports(dispatcher_inbox),
        ranks,
    )
    open_checkpoint = partial(
        load_model,
        device=device,
        dtype=choose_dtype(settings.dtype, device),
        fast=settings.fast == "auto",
        text_place=choose_text_place(settings.text_encoder_device, device),
    )
    preparer = Preparer(
        preparer_inbox,
        loop_inbox,
        dispatcher_inbox,
        AdapterCache(settings.adapters, settings.max_adapter_bytes),
        clock,
    )
    loader = Loader(loader_inbox, loop_inbox, dispatcher_inbox, device, clock)
    loads = ModelLoads(models, loader_inbox)
    loop = Loop(
        loop_inbox,
        dispatcher_inbox,
        preparer_inbox,
        finisher_inbox,
        engine,
        models,
        loads,
        ModelChanges(models, loads, open_checkpoint, dispatcher_inbox, settings.model_idle_seconds, clock),
        Previews(),
        SnapshotSchedule(settings.resume_seconds, settings.resume_max_bytes, clock),
        min(_MAX_HEARTBEAT_SECONDS, settings.step_timeout_seconds / 4),
        clock,
    )
    finisher = Finisher(
        finisher_inbox,
        dispatcher_inbox,
        partial(upload_artifacts, context),
        Retry(full_disk_seconds=settings.artifact_retry_seconds),
        provenance,
    )
    helpers = [
        LoopHelper("loader", loader.run, lambda: loader_inbox.post(CloseLoader())),
        LoopHelper("preparer", preparer.run, lambda: preparer_inbox.post(ClosePreparer())),
        LoopHelper("finisher", finisher.run, lambda: finisher_inbox.post(CloseFinisher())),
    ]
    return Worker(dispatcher, loop, helpers, dispatcher_inbox)


class _Beat:
    """The periodic work of a worker: publish metrics, and recover lost videos."""

    def __init__(self, settings: Settings, redis: Redis, name: str, meter: Meter) -> None:
        self._name = name
        self._ttl_seconds = settings.worker_ttl_seconds
        self._meter = meter
        self._recovery = Recovery(redis, LostVideos(redis, settings.video_ttl_seconds), settings.max_attempts)

    def __call__(self) -> None:
        self._meter.publish(self._name, self._ttl_seconds)
        self._recovery.revoke_death(self._name)
        self._recovery.run()


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
        for model in models:
            withdraw(redis, model, name)
    except RedisError as error:
        logger.warning("model announcements not withdrawn, they expire by themselves: %s", error)
