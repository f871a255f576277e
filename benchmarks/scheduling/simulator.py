"""The engine's loop with simulated time instead of a model, and with the worker's own scheduler."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scheduling.arrival_queue import Admitted, ArrivalQueue, Served
from benchmarks.scheduling.traffic import Arrival
from worker.engine.profile.latency_model import LatencyModel
from worker.engine.scheduler import Candidate, Scheduler


@dataclass
class _Slot:
    admitted: Admitted
    remaining_steps: int

    def candidate(self, now: float) -> Candidate[None]:
        arrival = self.admitted.arrival
        age_seconds = now - self.admitted.at_seconds
        return Candidate(arrival.request_id, None, arrival.rows, self.remaining_steps, age_seconds)


def simulate(
    traffic: Sequence[Arrival],
    scheduler: Scheduler,
    seconds: Callable[[int], float],
    curve: LatencyModel,
    max_slots: int,
) -> Iterator[Served]:
    """Serve all of `traffic` and yield requests as they complete.

    A pass takes `seconds(rows)`; the scheduler plans with `curve`.
    """
    queue = ArrivalQueue(traffic)
    slots: dict[str, _Slot] = {}
    now = pass_started_at = 0.0
    while queue or slots:
        for admitted in queue.admit(now, max_slots - len(slots), pass_started_at):
            slots[admitted.arrival.request_id] = _Slot(admitted, admitted.arrival.steps)
        if not slots:
            now = pass_started_at = queue.next_at
            continue
        chosen = scheduler.choose([slot.candidate(now) for slot in slots.values()], lambda _: curve)
        pass_started_at = now
        now += seconds(sum(slots[request_id].admitted.arrival.rows for request_id in chosen))
        for request_id in chosen:
            slots[request_id].remaining_steps -= 1
            if not slots[request_id].remaining_steps:
                yield Served(slots.pop(request_id).admitted, now)
