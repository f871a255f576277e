"""The real engine with a real model, under traffic."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from benchmarks.clocks import Clock
from benchmarks.line import Admitted, Line, Served
from benchmarks.traffic import Arrival
from models.generate import Generation
from worker.engine import Denoised, Engine, EngineSettings, Event, Failed
from worker.policy import Policy
from worker.resident import ResidentModels
from worker.step_curve import StepCurve

PROMPT = "a red circle moving left"  # for a text model; the time of a step does not depend on it


class RealEngine:
    """One model of `models`, with requests of `num_frames` frames."""

    def __init__(
        self, models: ResidentModels, model: str, num_frames: int, policy: Policy, max_seats: int, clock: type[Clock]
    ) -> None:
        self._model = model
        self._num_frames = num_frames
        self._checkpoint = models[model].checkpoint
        self._card = models[model].card
        self._new_clock = clock
        self._rows = 0
        self._pass_seconds: dict[int, list[float]] = defaultdict(list)
        settings = EngineSettings(max_batch_rows=policy.max_rows, max_seats=max_seats)
        self._engine = Engine(models, policy, settings, on_pass=self._count_rows)

    def serve(self, traffic: Sequence[Arrival]) -> Iterator[Served]:
        """Serve all of `traffic`, those first who are done first. Raises RuntimeError when a request fails."""
        line = Line(traffic)
        seats: dict[str, Admitted] = {}
        clock, pass_started_at = self._new_clock(), 0.0
        while line or seats:
            for admitted in line.admit(clock.now(), self._engine.free_seats(), pass_started_at):
                self._engine.admit(admitted.arrival.request_id, self._model, self._generation(admitted.arrival))
                seats[admitted.arrival.request_id] = admitted
            if not seats:
                clock.wait_until(line.next_at)
                pass_started_at = clock.now()
                continue
            pass_started_at = clock.now()
            done = _done(self._engine.step())
            self._pass_seconds[self._rows].append(clock.now() - pass_started_at)
            for request_id in done:
                yield Served(seats.pop(request_id), clock.now())

    @property
    def num_passes(self) -> dict[int, int]:
        """Passes since the engine was made, by their rows."""
        return {rows: len(times) for rows, times in sorted(self._pass_seconds.items())}

    def median_seconds(self, rows: int) -> float:
        """Of the passes with so many rows, without the first, which sets things up."""
        return median(self._pass_seconds[rows][1:])

    def seconds_like(self, curve: StepCurve) -> Callable[[int], float]:
        """The mean seconds of a pass by its rows as they were here; those of `curve` where there was none."""
        means = {rows: fmean(times) for rows, times in self._pass_seconds.items()}
        return lambda rows: means.get(rows, curve.seconds(rows))

    def _generation(self, arrival: Arrival) -> Generation:
        """A request of the model's own sampler, guided when it has two rows."""
        condition = self._checkpoint.condition(PROMPT, label=0)
        return Generation(
            seed=0,
            num_inference_steps=arrival.steps,
            guidance_scale=3.0 if arrival.rows == 2 else 1.0,
            sampler=self._card.sampler,
            num_frames=self._num_frames,
            condition=condition,
            negative=self._checkpoint.negative("", condition),
        )

    def _count_rows(self, model: str, rows: int, seconds: float) -> None:
        self._rows = rows


def _done(events: Sequence[Event]) -> list[str]:
    for event in events:
        if isinstance(event, Failed):
            raise RuntimeError(f"request {event.request_id} failed") from event.error
    return [event.request_id for event in events if isinstance(event, Denoised)]
