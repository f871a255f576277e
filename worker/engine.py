"""Many requests in one running batch: each forward pass takes whoever is most urgent, wherever they are on their way.

The engine knows neither queues nor records. It is used from one thread.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import monotonic, perf_counter

import torch
from torch import Tensor

from models.generate import Generation
from worker.errors import NotFiniteError, OutOfDeviceMemoryError
from worker.lineup import Lineup
from worker.memory import RowLimit, is_out_of_memory
from worker.policy import Candidate, Policy
from worker.resident import ResidentModels
from worker.seat import Group, Seat
from worker.snapshot import Snapshot
from worker.step_curve import StepCurve

logger = logging.getLogger(__name__)

_STARVING_PAUSE_SECONDS = 0.5


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
    """The last step is done. `seconds` went by from the first one."""

    request_id: str
    latents: Tensor  # (1, T, C, H, W) float32
    seconds: float


@dataclass(frozen=True)
class Failed:
    """This request cannot be done; it has left the engine, and the others go on."""

    request_id: str
    error: Exception


Event = Progress | Denoised | Failed


@dataclass
class _Pace:
    """What is measured of one group. `tokens` are those of one row."""

    tokens: int
    limit: RowLimit
    curve: StepCurve = field(default_factory=StepCurve)
    row_counts_seen: set[int] = field(default_factory=set)
    last_rows: int = 0

    def observe(self, rows: int, seconds: float) -> None:
        """The first pass of each size is left out: it sets things up that the later ones find."""
        if rows in self.row_counts_seen:
            self.curve.observe(rows, seconds)
            self.last_rows = rows
        self.row_counts_seen.add(rows)

    @property
    def cost_per_second(self) -> float | None:
        """Of passes as the last one, None before any was measured."""
        return self.last_rows * self.tokens / self.curve.seconds(self.last_rows) if self.last_rows else None


Lineups = dict[tuple[Seat, ...], Lineup]


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
        self._paces: dict[Group, _Pace] = {}
        self._last_group: dict[str, Group] = {}
        # Those of the last step; any other would know old states.
        self._lineups: Lineups = {}

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
        if seat.group not in self._paces:
            tokens = generation.num_frames * checkpoint.config.tokens_per_frame
            self._paces[seat.group] = _Pace(tokens, RowLimit(self._settings.max_batch_rows))
        self._seats[request_id] = seat

    def evict(self, request_id: str) -> bool:
        """Let a request go, whatever it has come to; the others go on. Whether it was here."""
        return self._seats.pop(request_id, None) is not None

    def step(self) -> list[Event]:
        """One step of those who are most urgent, and what came of it; nothing when nobody is here."""
        seats = self._choose()
        if not seats:
            return []
        lineups, self._lineups = self._lineups, {}
        companies = [[seat] for seat in seats] if self._settings.deterministic else [seats]
        before = [seat.step for seat in seats]
        started = perf_counter()
        events = [event for company in companies for event in self._attempt(company, lineups)]
        if all(seat.step > step for seat, step in zip(seats, before, strict=True)):
            self._observe(seats, perf_counter() - started)
        return events

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
            if seat.waits_until <= now
        ]
        ids = self._policy.choose(
            candidates,
            curve_of=lambda group: self._paces[group].curve,
            limit_of=lambda group: self._paces[group].limit.rows,
        )
        return [self._seats[request_id] for request_id in ids]

    # One step of them

    def _attempt(self, seats: Sequence[Seat], lineups: Lineups) -> list[Event]:
        """A pass of `seats`, or of fewer where memory is short, or of each alone to find out which one raises."""
        while True:
            try:
                return self._pass(seats, lineups)
            except torch.AcceleratorError:
                raise  # the device is gone, for everybody
            except Exception as error:
                failure = error
            if is_out_of_memory(failure):
                failure.__traceback__ = None  # it holds on to what the pass had allocated
                torch.cuda.empty_cache()
                fewer = self._fewer(seats)
                if not fewer:
                    return self._starve(seats[0])
                seats = fewer
            elif len(seats) == 1:
                return [self._fail(seats[0], failure)]
            else:
                logger.warning("a pass of %d requests failed, each is tried alone: %r", len(seats), failure)
                return [event for seat in seats for event in self._attempt([seat], lineups)]

    def _pass(self, seats: Sequence[Seat], lineups: Lineups) -> list[Event]:
        transformer = self._models[seats[0].group.model].checkpoint.transformer
        company = tuple(seats)
        lineup = lineups.get(company) or Lineup(company, transformer)
        for seat in seats:
            seat.started_at = seat.started_at or perf_counter()
        pass_started = perf_counter()
        finite = lineup.step(transformer, self._rows_at_once(seats)).tolist()
        self._on_pass(seats[0].group.model, lineup.rows, perf_counter() - pass_started)
        self._paces[seats[0].group].limit.passed(lineup.rows)
        self._lineups[company] = lineup
        return [event for seat, is_finite in zip(seats, finite, strict=True) for event in self._events(seat, is_finite)]

    def _rows_at_once(self, seats: Sequence[Seat]) -> int:
        rows = sum(seat.rows for seat in seats)
        return rows if self._settings.deterministic else min(rows, self._paces[seats[0].group].limit.rows)

    def _fewer(self, seats: Sequence[Seat]) -> Sequence[Seat]:
        """Those of `seats` for whom there may be memory, as there was none for all; none where it cannot be fewer."""
        if self._models.unload_one(keep={seat.group.model for seat in self._seats.values()}):
            return seats  # models that nobody waits for go first
        limit = self._paces[seats[0].group].limit
        rows = self._rows_at_once(seats)
        limit.refused(rows)
        if rows == 1 or (self._settings.deterministic and len(seats) == 1):
            return seats if self._models.unload_one(keep={seats[0].group.model}) else []
        logger.warning("no memory for %d rows of %s: trying %d", rows, seats[0].group.model, limit.rows)
        ends = accumulate(seat.rows for seat in seats)
        return [seat for seat, end in zip(seats, ends, strict=True) if end <= limit.rows] or seats[:1]

    def _starve(self, seat: Seat) -> list[Event]:
        """There is no memory for a request even alone: it waits for some, but not for ever."""
        now = monotonic()
        seat.starved_since = seat.starved_since or now
        if now - seat.starved_since < self._settings.memory_patience_seconds:
            seat.waits_until = now + _STARVING_PAUSE_SECONDS
            return []
        message = f"the device has had no memory for this request for {self._settings.memory_patience_seconds:.0f} s"
        return [self._fail(seat, OutOfDeviceMemoryError(f"{message}: try fewer frames"))]

    def _events(self, seat: Seat, is_finite: bool) -> list[Event]:
        seat.starved_since = None
        generation = seat.generation
        if not is_finite:
            error = NotFiniteError(generation.num_inference_steps, generation.sampler, generation.guidance_scale)
            return [self._fail(seat, error)]
        events: list[Event] = [Progress(seat.request_id, seat.step, seat.steps)]
        if seat.done:
            del self._seats[seat.request_id]
            assert seat.started_at is not None
            events.append(Denoised(seat.request_id, seat.latents, perf_counter() - seat.started_at))
        return events

    def _fail(self, seat: Seat, error: Exception) -> Failed:
        del self._seats[seat.request_id]
        return Failed(seat.request_id, error)

    def _observe(self, seats: Sequence[Seat], seconds: float) -> None:
        group = seats[0].group
        self._paces[group].observe(sum(seat.rows for seat in seats), seconds)
        self._last_group[group.model] = group
