"""Continuous batching: before every forward pass, the scheduler chooses which active requests take part.

The engine knows neither queues nor records.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from models.checkpoint.load import Checkpoint
from models.generate import Generation
from worker.engine.active_request import ActiveRequest, Group
from worker.engine.passes.executor import Executor
from worker.engine.passes.in_flight import InFlightStep
from worker.engine.profile.group_profile import GroupProfile
from worker.engine.profile.memory_limit import RowLimit
from worker.engine.ranks.rank_group import RankGroup
from worker.engine.scheduler import Candidate, Scheduler
from worker.engine.snapshot import Snapshot
from worker.engine.warm_up import warm_up
from worker.errors import NotFiniteError
from worker.loading.model_cache import ModelCache


@dataclass(frozen=True)
class EngineSettings:
    """Limits and modes of an engine.

    Attributes:
        max_batch_rows: Maximum rows of a forward pass. A request with guidance takes two. One request always runs.
        max_slots: Maximum number of active requests. Those outside the current pass keep their latents.
        deterministic: The same request gives the same latents bit for bit, whatever else is active. Requests then share
            only the passes for which the warm-up has measured that; others have passes of their own, because products
            of different sizes may be rounded differently.
        memory_patience_seconds: A request fails when there is no memory for it, even alone, for this time.
        max_in_flight_steps: Maximum number of steps that the device has been given. Default: 2 on CUDA, so that the
            device never waits for the host, otherwise 1.
        cuda_graphs: On CUDA, replay steps from graphs, so that the device waits less for the host.
    """

    max_batch_rows: int = 8
    max_slots: int = 16
    deterministic: bool = False
    memory_patience_seconds: float = 60.0
    max_in_flight_steps: int | None = None
    cuda_graphs: bool = True


@dataclass(frozen=True)
class Progress:
    """`step` of the sampler's `steps` are complete: one for each step of all turns."""

    request_id: str
    step: int
    steps: int


@dataclass(frozen=True)
class Denoised:
    """The last step is complete, `seconds` after the start of the first one in this engine."""

    request_id: str
    latents: Tensor  # (1, T, C, H, W) float32
    seconds: float


@dataclass(frozen=True)
class Failed:
    """The request cannot be completed and has left the engine. Other requests are not affected."""

    request_id: str
    error: Exception


Event = Progress | Denoised | Failed


class Engine:
    """Admits requests with `admit`, advances them with `step`, and removes them with an event or with `evict`.

    It loads no model. When the memory for a step is short even alone, it unloads models that other requests use. They
    wait until the model is in memory again.

    Not thread-safe: one thread makes all calls.
    """

    def __init__(
        self,
        models: ModelCache,
        scheduler: Scheduler,
        settings: EngineSettings,
        on_pass: Callable[[str, int, float], None] = lambda model, rows, seconds: None,
        clock: Callable[[], float] = monotonic,
        on_start: Callable[[Collection[str]], None] = lambda request_ids: None,
        ranks: RankGroup | None = None,
    ) -> None:
        """`on_start(ids of the requests of all steps in flight)` is called before each step, and
        `on_pass(model, rows, seconds)` after each forward pass. `ranks` are other GPUs, which share passes."""
        self._models = models
        self._scheduler = scheduler
        self._settings = settings
        self._on_pass = on_pass
        self._on_start = on_start
        self._clock = clock
        self._active: dict[str, ActiveRequest] = {}
        self._profiles: dict[Group, GroupProfile] = {}
        self._last_group: dict[str, Group] = {}
        self._executor = Executor(
            models, settings.deterministic, settings.memory_patience_seconds, clock, settings.cuda_graphs, ranks
        )
        self._in_flight: deque[InFlightStep] = deque()
        self._already_done: list[ActiveRequest] = []  # admitted from a snapshot after the last step

    def warm_up(self, max_seconds: float) -> None:
        """Measure latency, and on CUDA memory, of each loaded model, for at most `max_seconds` each.

        Without it the engine learns both from the requests.
        """
        for model in self._models.loaded:
            checkpoint = self._models[model].checkpoint
            group = Group.of(model, checkpoint, checkpoint.config.num_frames)
            profile = self._profile(group, checkpoint)
            settings, transformer = self._settings, checkpoint.transformer
            warm_up(
                checkpoint,
                profile,
                settings.max_batch_rows,
                max_seconds,
                settings.deterministic,
                self._clock,
                self._executor.graphs_of(transformer),
                self._executor.shared_pass(transformer),
            )
            self._last_group[model] = group

    @property
    def request_ids(self) -> Sequence[str]:
        """The ids of the active requests, in the order of their admission."""
        return tuple(self._active)

    def free_slots(self) -> int:
        """How many more requests can be admitted now."""
        return self._settings.max_slots - len(self._active)

    def admit(
        self,
        request_id: str,
        model: str,
        generation: Generation,
        snapshot: Snapshot | None = None,
        isolation: str | None = None,
    ) -> None:
        """Add a request, which resumes from `snapshot` if there is one.

        Args:
            isolation: The request shares passes only with requests of the same isolation.

        Raises:
            KeyError: When the model is not in memory.
            ValueError: When the checkpoint does not support the generation, the snapshot is of another request, or the
                request is active already.
            RuntimeError: When no slot is free.
        """
        if request_id in self._active:
            raise ValueError(f"request {request_id!r} is active already")
        if self.free_slots() < 1:
            raise RuntimeError(f"all {self._settings.max_slots} slots are taken: check free_slots() before admit()")
        checkpoint = self._models[model].checkpoint
        request = ActiveRequest.create(request_id, model, checkpoint, generation, snapshot, self._clock())
        request.isolation = isolation
        self._profile(request.group, checkpoint)
        self._active[request_id] = request
        if request.done:
            self._already_done.append(request)

    def evict(self, request_id: str) -> bool:
        """Remove a request at any stage. Returns whether it was active."""
        return self._active.pop(request_id, None) is not None

    def step(self) -> list[Event]:
        """Run one step of the most urgent requests, and return its events; none without active requests.

        With two steps in flight, the events are those of the step before the one that was just started.
        """
        events: list[Event] = []
        for request in self._already_done:
            events += self._complete(request, request.steps_done, is_finite=True)
        self._already_done.clear()
        while self._can_start_step() and (requests := self._choose()):
            events += self._start_step(requests)
        return events + self._finish_step(self._in_flight.popleft()) if self._in_flight else events

    def preview(self, request_id: str) -> Tensor | None:
        """The clean latents (1, T, C, H, W) that the last step predicted, None before it.

        Raises:
            KeyError: When the request is not active.
        """
        return self._active[request_id].prediction

    def snapshot(self, request_id: str) -> Snapshot:
        """The argument for `admit` that resumes the request in this or another process, bit for bit.

        Raises:
            KeyError: When the request is not active.
        """
        return self._active[request_id].snapshot()

    def cost_per_second(self) -> dict[str, float]:
        """Steps x rows x tokens per second, by model. Models without a measurement are left out."""
        profiles = {model: self._profiles[group] for model, group in self._last_group.copy().items()}
        return {model: cost for model, profile in profiles.items() if (cost := profile.cost_per_second) is not None}

    def row_limits(self) -> dict[str, int]:
        """Rows of a pass for which there is memory, by model, as far as passes of the model were run."""
        return {model: self._profiles[group].row_limit.rows for model, group in self._last_group.items()}

    def _profile(self, group: Group, checkpoint: Checkpoint) -> GroupProfile:
        if group not in self._profiles:
            tokens_per_row = group.shape[0] * checkpoint.config.tokens_per_frame
            self._profiles[group] = GroupProfile(tokens_per_row, RowLimit(self._settings.max_batch_rows))
        return self._profiles[group]

    def _can_start_step(self) -> bool:
        if not self._in_flight:
            return True
        default = 2 if self._in_flight[0].is_asynchronous else 1
        return len(self._in_flight) < (self._settings.max_in_flight_steps or default)

    def _choose(self) -> list[ActiveRequest]:
        now = self._clock()
        candidates = [
            Candidate(
                request_id=request.request_id,
                group=(request.group, request.isolation),
                rows=request.rows,
                remaining_steps=request.remaining_rows / request.full_rows,
                full_rows=request.full_rows,
                age_seconds=now - request.admitted_at,
            )
            for request in self._active.values()
            if request.retry_at <= now and not request.done and request.group.model in self._models.loaded
        ]
        ids = self._scheduler.choose(
            candidates,
            latency_of=lambda key: self._profiles[key[0]].latency,
            row_limit_of=lambda key: self._profiles[key[0]].row_limit.rows,
        )
        return [self._active[request_id] for request_id in ids]

    def _start_step(self, requests: Sequence[ActiveRequest]) -> list[Event]:
        group = requests[0].group
        models_in_use = {request.group.model for request in self._active.values()}
        in_flight = [request for step in self._in_flight for part in step.passes for request in part.requests]
        self._on_start({request.request_id for request in (*in_flight, *requests)})
        execution = self._executor.execute(requests, self._profiles[group], models_in_use)
        if execution.passes:
            num_running = sum(len(started.requests) for started in execution.passes)
            self._in_flight.append(InFlightStep(group, execution.passes, is_complete=num_running == len(requests)))
        return [self._fail(request, error) for request, error in execution.failures]

    def _finish_step(self, step: InFlightStep) -> list[Event]:
        model = step.group.model
        events: list[Event] = []
        for finished in step.passes:
            for request, number, is_finite in zip(finished.requests, finished.steps, finished.wait(), strict=True):
                events += self._complete(request, number, is_finite)
            if finished.rows:
                self._on_pass(model, finished.rows, finished.seconds)
        if step.is_complete and step.rows:
            self._profiles[step.group].observe(step.rows, step.seconds)
            self._last_group[model] = step.group
        return events

    def _complete(self, request: ActiveRequest, step: int, is_finite: bool) -> list[Event]:
        if self._active.get(request.request_id) is not request:
            return []  # evicted during the step
        request.out_of_memory_since = None
        generation = request.generation
        if not is_finite:
            error = NotFiniteError(generation.num_inference_steps, generation.sampler, generation.guidance_scale)
            return [self._fail(request, error)]
        events: list[Event] = [Progress(request.request_id, step // len(request.starts), request.table.num_steps)]
        if step == request.steps:
            del self._active[request.request_id]
            now = self._clock()
            seconds = 0.0 if request.started_at is None else now - request.started_at
            events.append(
                Denoised(request.request_id, request.latents.clone(memory_format=torch.contiguous_format), seconds)
            )
        return events

    def _fail(self, request: ActiveRequest, error: Exception) -> Failed:
        del self._active[request.request_id]
        return Failed(request.request_id, error)
