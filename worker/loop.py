"""The loop thread: runs the engine step by step, and handles messages between two steps.

It owns the engine and the models.
"""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from models.generate import Generation
from worker.context import log_about
from worker.device import record_event
from worker.engine.engine import Denoised, Engine, Event, Progress
from worker.engine.snapshot_schedule import SnapshotSchedule
from worker.errors import ModelUnavailableError, StartupError
from worker.loading.model_cache import LoadedModel, ModelCache
from worker.loading.model_changes import ModelChanges
from worker.loading.model_loads import ModelLoads
from worker.messages import (
    AddModel,
    AdmitJob,
    DispatcherEnded,
    DispatcherMessage,
    DrainStarted,
    DropJob,
    EvictJob,
    FinisherMessage,
    FinishJob,
    Inbox,
    JobDenoised,
    JobFailed,
    JobPrepared,
    LoadModel,
    LoopMessage,
    LoopReport,
    ModelNotRead,
    ModelRead,
    PinModels,
    PrepareJob,
    PreparerMessage,
    PreviewMade,
    RemoveModel,
    SnapshotTaken,
    UnloadModel,
)
from worker.output.previews import Previews

logger = logging.getLogger(__name__)

_REPORT_SECONDS = 0.05
# Between two tries while all active requests wait for memory.
_MEMORY_RETRY_SECONDS = 0.05


class Loop:
    """Receives jobs from the dispatcher, has them prepared, and posts progress to the dispatcher and latents to the
    finisher."""

    def __init__(
        self,
        inbox: Inbox[LoopMessage],
        dispatcher: Inbox[DispatcherMessage],
        preparer: Inbox[PreparerMessage],
        finisher: Inbox[FinisherMessage],
        engine: Engine,
        models: ModelCache,
        loads: ModelLoads,
        changes: ModelChanges,
        previews: Previews,
        snapshots: SnapshotSchedule,
        heartbeat_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`heartbeat_seconds` is the longest time between two reports to the dispatcher outside of steps and loads."""
        self._inbox = inbox
        self._dispatcher = dispatcher
        self._preparer = preparer
        self._finisher = finisher
        self._engine = engine
        self._models = models
        self._loads = loads
        self._changes = changes
        self._previews = previews
        self._snapshots = snapshots
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._waiting: dict[str, AdmitJob] = {}  # for their models
        self._preparing: dict[str, AdmitJob] = {}
        self._jobs: dict[str, AdmitJob] = {}  # the active requests
        self._denoised: dict[str, Denoised] = {}  # those of the active requests that wait for their models
        self._steps: dict[str, int] = {}
        self._reported_at = float("-inf")
        self._reported: tuple[frozenset[str], str | None] = (frozenset(), None)
        self._is_draining = False
        self._has_ended = False

    def warm_up(self, max_seconds: float) -> None:
        """Measure the models before the first job, for at most `max_seconds` each."""
        self._engine.warm_up(max_seconds)

    def run(self) -> None:
        """Run until the dispatcher ends. An error of the engine ends the loop; the leases then expire."""
        wait_seconds = 0.0
        while not self._has_ended:
            self._receive(wait_seconds)
            in_use = _models_of(self._preparing, self._jobs)
            self._changes.apply(in_use | _models_of(self._waiting))
            self._loads.advance(in_use)
            self._report()
            self._models.preparing = _models_of(self._preparing)
            events = self._engine.step()
            for event in events:
                self._publish(event)
            self._reload()
            wait_seconds = 0.0 if events else _MEMORY_RETRY_SECONDS if self._jobs else self._heartbeat_seconds

    def _receive(self, wait_seconds: float) -> None:
        """Handle the messages that have arrived, and keep none of them: one may hold a model."""
        for message in self._inbox.receive(wait_seconds):
            self._handle(message)

    def _report(self) -> None:
        now, states = self._clock(), (frozenset(self._models.loaded), self._loads.reading)
        if states != self._reported or now - self._reported_at >= min(_REPORT_SECONDS, self._heartbeat_seconds):
            self._dispatcher.post(LoopReport(now, self._steps.copy(), self._engine.cost_per_second(), *states))
            self._reported_at, self._reported = now, states

    def _handle(self, message: LoopMessage) -> None:
        match message:
            case AdmitJob():
                self._waiting[message.request_id] = message
                self._loads.request(message.record.request.model, partial(self._prepare, message))
            case JobPrepared(request_id, generation):
                if request_id in self._preparing:  # otherwise evicted meanwhile
                    job = self._preparing.pop(request_id)
                    with log_about(job.record):
                        self._admit(job, generation)
            case JobFailed(request_id):
                if self._preparing.pop(request_id, None) is not None:
                    self._dispatcher.post(message)
            case EvictJob(request_id):
                self._evict(request_id)
            case AddModel() | RemoveModel() | LoadModel() | UnloadModel() | PinModels():
                self._changes.receive(message)
            case ModelRead() | ModelNotRead():
                self._loads.receive(message)
            case DrainStarted():
                self._is_draining = True
            case DispatcherEnded():
                self._has_ended = True

    def _prepare(self, job: AdmitJob, error: Exception | None) -> None:
        """Have a job prepared whose model is in memory, or fail it with the error of loading the model."""
        if self._waiting.pop(job.request_id, None) is None:
            return  # evicted meanwhile
        name = job.record.request.model
        if error is None:
            model = self._models[name]
            self._preparing[job.request_id] = job
            self._preparer.post(PrepareJob(job.request_id, job.record, model.card, model.checkpoint, job.reference))
            return
        self._fail(job, error)

    def _fail(self, job: AdmitJob, error: Exception) -> None:
        """Fail a job with the error of loading its model. A message that names folders is for the log alone."""
        if isinstance(error, StartupError):
            model = job.record.request.model
            with log_about(job.record):
                logger.error("%s", error.message)
            error = ModelUnavailableError(f"the model {model!r} no longer loads on this worker: try again later")
        self._dispatcher.post(JobFailed(job.request_id, error))

    def _reload(self) -> None:
        """Have the models of active requests loaded again that the last step has unloaded for want of memory."""
        for model in _models_of(self._jobs).difference(self._models.loaded):
            self._loads.reload(model, partial(self._end_reload, model))

    def _end_reload(self, model: str, error: Exception | None) -> None:
        for job in [job for job in self._jobs.values() if job.record.request.model == model]:
            if error is not None:
                self._evict(job.request_id)
                self._fail(job, error)
            elif job.request_id in self._denoised:
                self._finish(self._denoised[job.request_id], self._models[model])

    def _admit(self, job: AdmitJob, generation: Generation) -> None:
        try:
            if job.snapshot is None or not self._resume(job, generation, job.snapshot):
                model, group = job.record.request.model, job.record.quarantine_group
                self._engine.admit(job.request_id, model, generation, isolation=group)
        except Exception as error:
            self._dispatcher.post(JobFailed(job.request_id, error))
        else:
            self._jobs[job.request_id] = job

    def _resume(self, job: AdmitJob, generation: Generation, content: bytes) -> bool:
        """Admit a job from a stored snapshot. Returns False when the snapshot is of no use."""
        model = self._models[job.record.request.model]
        snapshot = self._snapshots.open(content, model)
        if snapshot is None:
            return False
        try:
            self._engine.admit(job.request_id, model.card.id, generation, snapshot, job.record.quarantine_group)
        except ValueError as error:
            logger.warning("%s: snapshot does not fit, starting from step 0: %s", job.record.id, error)
            return False
        logger.info("%s: resumed at step %d of %d", job.record.id, snapshot.step, snapshot.steps)
        return True

    def _evict(self, request_id: str) -> None:
        if self._waiting.pop(request_id, None) is not None:
            return
        if self._preparing.pop(request_id, None) is not None:
            self._preparer.post(DropJob(request_id))
            return
        self._engine.evict(request_id)
        self._finisher.post(DropJob(request_id))
        self._forget(request_id)

    def _publish(self, event: Event) -> None:
        match event:
            case Progress():
                self._steps[event.request_id] = event.step
                if model := self._model_of(event.request_id):
                    self._make_preview(event, model)
                    self._take_snapshot(event, model)
            case Denoised():
                if model := self._model_of(event.request_id):
                    self._finish(event, model)
                else:
                    self._denoised[event.request_id] = event
            case _:
                self._forget(event.request_id)
                self._dispatcher.post(JobFailed(event.request_id, event.error))

    def _model_of(self, request_id: str) -> LoadedModel | None:
        """The model of an active request, None when it was unloaded: on CUDA, a step may end after that."""
        name = self._jobs[request_id].record.request.model
        return self._models[name] if name in self._models.loaded else None

    def _make_preview(self, progress: Progress, model: LoadedModel) -> None:
        request_id, step = progress.request_id, progress.step
        url = self._previews.take(request_id, step, progress.steps, model, lambda: self._engine.preview(request_id))
        if url is not None:
            self._dispatcher.post(PreviewMade(request_id, step, url))

    def _take_snapshot(self, progress: Progress, model: LoadedModel) -> None:
        if progress.step == progress.steps:
            return
        request_id = progress.request_id
        content = self._snapshots.take(
            request_id, model, lambda: self._engine.snapshot(request_id), is_draining=self._is_draining
        )
        if content is not None:
            self._dispatcher.post(SnapshotTaken(request_id, content))

    def _finish(self, event: Denoised, model: LoadedModel) -> None:
        job = self._jobs[event.request_id]
        ready = record_event(event.latents)
        self._dispatcher.post(JobDenoised(event.request_id))
        self._finisher.post(
            FinishJob(
                event.request_id,
                job.record,
                model.checkpoint.vae,
                event.latents,
                ready,
                event.seconds,
                job.reference,
                model.fingerprint,
            )
        )
        self._forget(event.request_id)

    def _forget(self, request_id: str) -> None:
        self._jobs.pop(request_id, None)
        self._steps.pop(request_id, None)
        self._denoised.pop(request_id, None)
        self._previews.forget(request_id)
        self._snapshots.forget(request_id)


def _models_of(*jobs: Mapping[str, AdmitJob]) -> set[str]:
    return {job.record.request.model for some in jobs for job in some.values()}
