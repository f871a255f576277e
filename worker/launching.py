"""Giving passes to the device, and finding another way where one does not go."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from time import monotonic, perf_counter

import torch

from worker.errors import OutOfDeviceMemoryError
from worker.flight import Flight, Moment
from worker.lineup import Lineup
from worker.memory import RowLimit, is_out_of_memory
from worker.resident import ResidentModels
from worker.seat import Seat

logger = logging.getLogger(__name__)

_STARVING_PAUSE_SECONDS = 0.5


@dataclass
class Launch:
    """What became of one step of some requests. Those in neither list have no memory for now, and wait."""

    flights: list[Flight] = field(default_factory=list)
    failures: list[tuple[Seat, Exception]] = field(default_factory=list)


class Launcher:
    """Keeps the lineups of the last step; those of any step before would know old states."""

    def __init__(self, models: ResidentModels, deterministic: bool, memory_patience_seconds: float) -> None:
        self._models = models
        self._deterministic = deterministic
        self._patience_seconds = memory_patience_seconds
        self._lineups: dict[tuple[Seat, ...], Lineup] = {}

    def launch(self, seats: Sequence[Seat], limit: RowLimit, models_in_use: Collection[str]) -> Launch:
        """The next step of `seats`, which are of one group: of all in one pass, when deterministic of each in its own.

        Where memory is short, models that are not in use are unloaded, then the batch shrinks, and what is left of it
        waits. Raises what is no request's fault: `torch.AcceleratorError`, with which the device is gone.
        """
        kept, self._lineups = self._lineups, {}
        launch = Launch()
        for company in [[seat] for seat in seats] if self._deterministic else [list(seats)]:
            self._launch(company, _Try(limit, models_in_use, kept, launch))
        running = {seat for company in self._lineups for seat in company}
        for seat in {seat for company in kept for seat in company} - running:
            seat.leave()
        return launch

    def _launch(self, seats: Sequence[Seat], attempt: "_Try") -> None:
        while seats:
            try:
                attempt.launch.flights.append(self._pass(seats, attempt))
                return
            except Exception as error:
                failure = error
            if is_out_of_memory(failure):
                failure.__traceback__ = None  # it holds on to what the pass had allocated
                torch.cuda.empty_cache()
                seats = self._with_less_memory(seats, attempt)
            elif isinstance(failure, torch.AcceleratorError):
                raise failure
            elif len(seats) == 1:
                attempt.launch.failures.append((seats[0], failure))
                return
            else:
                logger.warning("a pass of %d requests failed, each is tried alone: %r", len(seats), failure)
                for seat in seats:
                    self._launch([seat], attempt)
                return

    def _pass(self, seats: Sequence[Seat], attempt: "_Try") -> Flight:
        transformer = self._models[seats[0].group.model].checkpoint.transformer
        company = tuple(seats)
        lineup = attempt.lineups.get(company) or Lineup(company, transformer)
        for seat in seats:
            seat.started_at = seat.started_at or perf_counter()
        started = Moment(lineup.device)
        finite = lineup.step(transformer, self._rows_at_once(seats, attempt.limit))
        flight = Flight(company, finite, started)
        attempt.limit.passed(flight.rows)
        self._lineups[company] = lineup
        return flight

    def _rows_at_once(self, seats: Sequence[Seat], limit: RowLimit) -> int:
        rows = sum(seat.rows for seat in seats)
        return rows if self._deterministic else min(rows, limit.rows)

    def _with_less_memory(self, seats: Sequence[Seat], attempt: "_Try") -> Sequence[Seat]:
        """Who of `seats` is tried next, as there was no memory for all of them."""
        if self._models.unload_one(keep=attempt.models_in_use):
            return seats
        rows = self._rows_at_once(seats, attempt.limit)
        if rows > 1 and not self._deterministic:
            attempt.limit.refused(rows)
            logger.warning("no memory for %d rows of %s: trying %d", rows, seats[0].group.model, attempt.limit.rows)
            ends = accumulate(seat.rows for seat in seats)
            return [seat for seat, end in zip(seats, ends, strict=True) if end <= attempt.limit.rows] or seats[:1]
        if self._models.unload_one(keep={seats[0].group.model}):
            return seats
        self._starve(seats[0], attempt.launch)
        return []

    def _starve(self, seat: Seat, launch: Launch) -> None:
        """There is no memory for this request even alone: it waits for some, but not for ever."""
        now = monotonic()
        seat.starved_since = seat.starved_since or now
        if now - seat.starved_since < self._patience_seconds:
            seat.waits_until = now + _STARVING_PAUSE_SECONDS
            return
        message = f"the device has had no memory for this request for {self._patience_seconds:.0f} s: try fewer frames"
        launch.failures.append((seat, OutOfDeviceMemoryError(message)))


@dataclass(frozen=True)
class _Try:
    """What the attempts of one step share."""

    limit: RowLimit
    models_in_use: Collection[str]
    lineups: dict[tuple[Seat, ...], Lineup]
    launch: Launch
