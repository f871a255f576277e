"""The real engine with a real model, serving traffic."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from benchmarks.scheduling.arrival_queue import Admitted, ArrivalQueue, Served
from benchmarks.scheduling.clocks import Clock
from benchmarks.scheduling.traffic import Arrival
from models.generate import Generation
from worker.engine.engine import Denoised, Engine, EngineSettings, Event, Failed
from worker.engine.profile.latency_model import LatencyModel
from worker.engine.scheduler import Scheduler
from worker.loading.model_cache import ModelCache

PROMPT = "a red circle moving left"  # for a text model; it does not affect the time of a step


class RealEngine:
    """An engine for one model of `models`, with requests of `num_frames` frames."""

    def __init__(
        self, models: ModelCache, model: str, num_frames: int, scheduler: Scheduler, max_slots: int, clock: type[Clock]
    ) -> None:
        self._model = model
        self._num_frames = num_frames
        self._checkpoint = models[model].checkpoint
        self._card = models[model].card
        self._new_clock = clock
        self._rows = 0
        self._pass_seconds: dict[int, list[float]] = defaultdict(list)
        settings = EngineSettings(max_batch_rows=scheduler.max_rows, max_slots=max_slots)
        self._engine = Engine(models, scheduler, settings, on_pass=self._count_rows)

    def serve(self, traffic: Sequence[Arrival]) -> Iterator[Served]:
        """Serve all of `traffic` and yield requests as they complete. Raises RuntimeError when a request fails."""
        queue = ArrivalQueue(traffic)
        active: dict[str, Admitted] = {}
        clock, pass_started_at = self._new_clock(), 0.0
        while queue or active:
            for admitted in queue.admit(clock.now(), self._engine.free_slots(), pass_started_at):
                self._engine.admit(admitted.arrival.request_id, self._model, self._generation(admitted.arrival))
                active[admitted.arrival.request_id] = admitted
            if not active:
                clock.wait_until(queue.next_at)
                pass_started_at = clock.now()
                continue
            pass_started_at = clock.now()
            done = _done(self._engine.step())
            self._pass_seconds[self._rows].append(clock.now() - pass_started_at)
            for request_id in done:
                yield Served(active.pop(request_id), clock.now())

    @property
    def num_passes(self) -> dict[int, int]:
        """Number of passes by their rows."""
        return {rows: len(times) for rows, times in sorted(self._pass_seconds.items())}

    def median_seconds(self, rows: int) -> float:
        """Median seconds of the passes with `rows` rows, without the first one, which includes set-up."""
        return median(self._pass_seconds[rows][1:])

    def seconds_like(self, curve: LatencyModel) -> Callable[[int], float]:
        """Mean seconds of this run's passes by their rows; for other row counts the seconds of `curve`."""
        means = {rows: fmean(times) for rows, times in self._pass_seconds.items()}
        return lambda rows: means.get(rows, curve.seconds(rows))

    def _generation(self, arrival: Arrival) -> Generation:
        """A generation with the model's default sampler, guided if the request has two rows."""
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
