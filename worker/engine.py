"""Many requests in one running batch: each forward pass takes whoever is most urgent, wherever they are on their way.

The engine knows neither queues nor records. It is used from one thread.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter

from torch import Tensor

from models.checkpoint.load import Checkpoint
from models.generate import Generation
from worker.errors import NotFiniteError
from worker.launching import Launch, Launcher
from worker.memory import RowLimit
from worker.pace import Pace
from worker.policy import Candidate, Policy
from worker.resident import ResidentModels
from worker.seat import Group, Seat
from worker.snapshot import Snapshot
from worker.warm_up import warm_up


@dataclass(frozen=True)
class EngineSettings:
    """What one engine takes.

    Attributes:
        max_batch_rows: the most rows of a forward pass; a request with guidance takes two. One request always runs.
        max_seats: the most requests admitted at once; those that are not in a pass keep their latents meanwhile.
        deterministic: the same request gives the same latents bit for bit, whoever else is there. Each request then has
            the model to itself: products of different sizes are rounded differently.
        memory_patience_seconds: after which a request fails for which there is no memory even when it is alone.
    """

    max_batch_rows: int = 8
    max_seats: int = 16
    deterministic: bool = False
    memory_patience_seconds: float = 60.0


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` are done."""

    request_id: str
    step: int
    steps: int


@dataclass(frozen=True)
class Denoised:
    """The last step is done. `seconds` went by from the first one that was done here."""

    request_id: str
    latents: Tensor  # (1, T, C, H, W) float32
    seconds: float


@dataclass(frozen=True)
class Failed:
    """This request cannot be done; it has left the engine, and the others go on."""

    request_id: str
    error: Exception


Event = Progress | Denoised | Failed


@dataclass(frozen=True)
class _Step:
    """One step of some requests, which the device is at."""

    group: Group
    launch: Launch
    is_whole: bool  # whether all that were meant to go went


class Engine:
    """Requests come with `admit`, go on with `step`, and leave with its events, or with `evict`.

    `on_pass(model, rows, seconds)` is called after each forward pass.
    """

    def __init__(
        self,
        models: ResidentModels,
        policy: Policy,
        settings: EngineSettings,
        on_pass: Callable[[str, int, float], None] = lambda model, rows, seconds: None,
    ) -> None:
        self._models = models
        self._policy = policy
        self._settings = settings
        self._on_pass = on_pass
        self._seats: dict[str, Seat] = {}
        self._paces: dict[Group, Pace] = {}
        self._last_group: dict[str, Group] = {}
        self._launcher = Launcher(models, settings.deterministic, settings.memory_patience_seconds)
        self._under_way: deque[_Step] = deque()
        self._done_before: list[Seat] = []  # admitted with all their steps done

    def warm_up(self, max_seconds: float) -> None:
        """Measure the models that are loaded: time by rows, and on CUDA the memory for them; so long for each model.

        Without it both are learnt from the requests.
        """
        for model in self._models.loaded:
            checkpoint = self._models[model].checkpoint
            group = Group.of(model, checkpoint, checkpoint.config.num_frames)
            pace = self._pace(group, checkpoint)
            warm_up(checkpoint, pace, self._settings.max_batch_rows, max_seconds, self._settings.deterministic)
            self._last_group[model] = group

    def free_seats(self) -> int:
        """How many more requests can be admitted now."""
        return self._settings.max_seats - len(self._seats)

    def admit(self, request_id: str, model: str, generation: Generation, snapshot: Snapshot | None = None) -> None:
        """Take a request, which goes on from `snapshot` where there is one.

        Raises ValueError for a generation that the checkpoint does not take, for a snapshot of another one, and for a
        request that is here already; RuntimeError when no seat is free.
        """
        if request_id in self._seats:
            raise ValueError(f"got the request {request_id!r}, which is at work already")
        if self.free_seats() < 1:
            raise RuntimeError(f"all {self._settings.max_seats} seats are taken: look at free_seats() before")
        checkpoint = self._models[model].checkpoint
        seat = Seat.take(request_id, model, checkpoint, generation, snapshot)
        self._pace(seat.group, checkpoint)
        self._seats[request_id] = seat
        if seat.done:
            self._done_before.append(seat)

    def evict(self, request_id: str) -> bool:
        """Let a request go, whatever it has come to; the others go on. Whether it was here."""
        return self._seats.pop(request_id, None) is not None

    def step(self) -> list[Event]:
        """One step of those who are most urgent, and what came of it; nothing when nobody is here.

        On CUDA the device gets the next step before the last one is done, so that it never waits for the host; what is
        told is then one step behind.
        """
        events = [event for seat in self._done_before for event in self._arrive(seat, seat.step, is_finite=True)]
        self._done_before.clear()
        while self._takes_more() and (seats := self._choose()):
            events += self._launch(seats)
        return events + self._land(self._under_way.popleft()) if self._under_way else events

    def preview(self, request_id: str) -> Tensor | None:
        """The clean latents (1, T, C, H, W) that the last step predicted, None before it. KeyError if not here."""
        return self._seats[request_id].prediction

    def snapshot(self, request_id: str) -> Snapshot:
        """What `admit` needs to go on from here, in this process or another, bit for bit. KeyError if not here."""
        return self._seats[request_id].snapshot()

    def cost_per_second(self) -> dict[str, float]:
        """By model: steps x rows x tokens that a second of this device does. Models not measured yet are left out."""
        # A copy: other threads ask, too.
        paces = {model: self._paces[group] for model, group in self._last_group.copy().items()}
        return {model: cost for model, pace in paces.items() if (cost := pace.cost_per_second) is not None}

    def _pace(self, group: Group, checkpoint: Checkpoint) -> Pace:
        if group not in self._paces:
            tokens = group.shape[0] * checkpoint.config.tokens_per_frame
            self._paces[group] = Pace(tokens, RowLimit(self._settings.max_batch_rows))
        return self._paces[group]

    # Who goes

    def _choose(self) -> list[Seat]:
        now = monotonic()
        candidates = [
            Candidate(
                request_id=seat.request_id,
                group=seat.group,
                rows=seat.rows,
                remaining_steps=seat.steps - seat.step,
                age_seconds=now - seat.admitted_at,
                setup_seconds=self._models.load_seconds(seat.group.model),
            )
            for seat in self._seats.values()
            if seat.waits_until <= now and not seat.done
        ]
        ids = self._policy.choose(
            candidates,
            curve_of=lambda group: self._paces[group].curve,
            limit_of=lambda group: self._paces[group].limit.rows,
        )
        return [self._seats[request_id] for request_id in ids]

    # One step of them

    def _takes_more(self) -> bool:
        """Whether the device is to get another step: at any time it has one, and on CUDA the one after it, too."""
        if len(self._under_way) != 1:
            return not self._under_way
        return any(flight.is_asynchronous for flight in self._under_way[0].launch.flights)

    def _launch(self, seats: Sequence[Seat]) -> list[Event]:
        group = seats[0].group
        in_use = {seat.group.model for seat in self._seats.values()}
        launch = self._launcher.launch(seats, self._paces[group].limit, in_use)
        if launch.flights:
            num_gone = sum(len(flight.seats) for flight in launch.flights)
            self._under_way.append(_Step(group, launch, is_whole=num_gone == len(seats)))
        return [self._fail(seat, error) for seat, error in launch.failures]

    def _land(self, step: _Step) -> list[Event]:
        events: list[Event] = []
        for flight in step.launch.flights:
            for seat, number, is_finite in zip(flight.seats, flight.steps, flight.land(), strict=True):
                events += self._arrive(seat, number, is_finite)
            self._on_pass(step.group.model, flight.rows, flight.seconds)
        if step.is_whole:
            flights = step.launch.flights
            self._paces[step.group].observe(sum(f.rows for f in flights), sum(f.seconds for f in flights))
            self._last_group[step.group.model] = step.group
        return events

    def _arrive(self, seat: Seat, step: int, is_finite: bool) -> list[Event]:
        if self._seats.get(seat.request_id) is not seat:
            return []  # it was evicted meanwhile
        seat.starved_since = None
        generation = seat.generation
        if not is_finite:
            error = NotFiniteError(generation.num_inference_steps, generation.sampler, generation.guidance_scale)
            return [self._fail(seat, error)]
        events: list[Event] = [Progress(seat.request_id, step, seat.steps)]
        if step == seat.steps:
            del self._seats[seat.request_id]
            now = perf_counter()
            events.append(Denoised(seat.request_id, seat.latents.clone(), now - (seat.started_at or now)))
        return events

    def _fail(self, seat: Seat, error: Exception) -> Failed:
        del self._seats[seat.request_id]
        return Failed(seat.request_id, error)
