"""Builds a worker from the settings: its threads, their inboxes, and what each owns."""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from redis import Redis

from jobs.errors import ArtifactStoreError
from jobs.queue.claim import Claims
from jobs.queue.claimed_videos import ClaimedVideos
from jobs.queue.redis_allow_oom import AllowOomRedis
from jobs.queue.rq_adapter import VideoWorker
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.storage.store_mark import StoreMark
from worker.context import WorkerContext
from worker.device import choose_device, choose_dtype, choose_max_batch_rows, choose_text_place
from worker.dispatch.beat import Beat
from worker.dispatch.dispatcher import Dispatcher, DispatcherSettings
from worker.dispatch.pass_reports import PassReports
from worker.dispatch.served_models import ServedModels
from worker.engine.engine import Engine, EngineSettings
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.scheduler import Scheduler
from worker.engine.snapshot_schedule import SnapshotSchedule
from worker.loading.adapter_cache import AdapterCache
from worker.loading.adapter_watch import AdapterWatch
from worker.loading.checkpoint_watch import CheckpointWatch
from worker.loading.loader import Loader
from worker.loading.model_cache import ModelCache, load_model
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
from worker.output.passing_faults import Retry
from worker.output.previews import Previews
from worker.output.provenance import DEFAULT_PROVENANCE, Provenance
from worker.preparation.preparer import Preparer
from worker.worker import LoopHelper, Worker

logger = logging.getLogger(__name__)

_MAX_HEARTBEAT_SECONDS = 1.0


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
    inboxes = _Inboxes()
    device = choose_device(settings.device)
    max_batch_rows = choose_max_batch_rows(settings.max_batch_rows, device)
    redis = AllowOomRedis.over(redis)  # a full Redis must not stop the work that empties it
    context = _open_stores(settings, redis, name, meter)
    served = ServedModels(redis, name, settings.worker_ttl_seconds, models.cards, inboxes.loop, watch, adapter_watch)
    dispatcher = Dispatcher(
        redis,
        VideoWorker(redis, list(models.cards), name),
        context,
        Claims(redis, context.store, served.ids, name),
        served,
        DispatcherSettings(
            settings.max_slots,
            max_batch_rows,
            settings.drain_seconds,
            settings.step_timeout_seconds,
            settings.worker_ttl_seconds,
            burst,
        ),
        inboxes.dispatcher,
        inboxes.loop,
        inboxes.finisher,
        Beat(settings, redis, name, meter),
        on_hang,
        clock,
    )
    engine = Engine(
        models,
        Scheduler(max_rows=max_batch_rows, margin=settings.batch_margin),
        EngineSettings(max_batch_rows, settings.max_slots, settings.deterministic, cuda_graphs=settings.fast == "auto"),
        meter.passed,
        clock,
        PassReports(inboxes.dispatcher),
        ranks,
    )
    loop = _build_loop(settings, models, engine, inboxes, device, clock)
    helpers = _build_helpers(settings, context, inboxes, device, provenance, clock)
    return Worker(dispatcher, loop, helpers, inboxes.dispatcher)


@dataclass(frozen=True)
class _Inboxes:
    """One for each thread."""

    dispatcher: Inbox[DispatcherMessage] = field(default_factory=Inbox)
    loader: Inbox[LoaderMessage] = field(default_factory=Inbox)
    preparer: Inbox[PreparerMessage] = field(default_factory=Inbox)
    loop: Inbox[LoopMessage] = field(default_factory=Inbox)
    finisher: Inbox[FinisherMessage] = field(default_factory=Inbox)


def _open_stores(settings: Settings, redis: Redis, name: str, meter: Meter) -> WorkerContext:
    mark = StoreMark(redis)
    artifacts = ArtifactStore(settings.artifacts, settings.artifact_retry_seconds, mark.expected)
    with contextlib.suppress(ArtifactStoreError):  # logged; writes wait until the store is back
        mark.bind(artifacts)
    store = ClaimedVideos(redis, settings.video_ttl_seconds)
    return WorkerContext(name, store, artifacts, settings.max_attempts, meter)


def _build_loop(
    settings: Settings,
    models: ModelCache,
    engine: Engine,
    inboxes: _Inboxes,
    device: torch.device,
    clock: Callable[[], float],
) -> Loop:
    open_checkpoint = partial(
        load_model,
        device=device,
        dtype=choose_dtype(settings.dtype, device),
        fast=settings.fast == "auto",
        text_place=choose_text_place(settings.text_encoder_device, device),
    )
    loads = ModelLoads(models, inboxes.loader)
    return Loop(
        inboxes.loop,
        inboxes.dispatcher,
        inboxes.preparer,
        inboxes.finisher,
        engine,
        models,
        loads,
        ModelChanges(models, loads, open_checkpoint, inboxes.dispatcher, settings.model_idle_seconds),
        Previews(),
        SnapshotSchedule(settings.resume_seconds, settings.resume_max_bytes, clock),
        min(_MAX_HEARTBEAT_SECONDS, settings.step_timeout_seconds / 4),
        clock,
    )


def _build_helpers(
    settings: Settings,
    context: WorkerContext,
    inboxes: _Inboxes,
    device: torch.device,
    provenance: Provenance,
    clock: Callable[[], float],
) -> list[LoopHelper]:
    adapters = AdapterCache(settings.adapters, settings.max_adapter_bytes)
    loader = Loader(inboxes.loader, inboxes.loop, inboxes.dispatcher, device, clock)
    preparer = Preparer(inboxes.preparer, inboxes.loop, inboxes.dispatcher, adapters, clock)
    finisher = Finisher(
        inboxes.finisher,
        inboxes.dispatcher,
        partial(upload_artifacts, context),
        Retry(full_disk_seconds=settings.artifact_retry_seconds),
        provenance,
    )
    return [
        LoopHelper("loader", loader.run, lambda: inboxes.loader.post(CloseLoader())),
        LoopHelper("preparer", preparer.run, lambda: inboxes.preparer.post(ClosePreparer())),
        LoopHelper("finisher", finisher.run, lambda: inboxes.finisher.post(CloseFinisher())),
    ]
