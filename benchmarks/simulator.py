"""The engine's loop with a clock instead of a model: the very policy of the worker, and seconds that nobody waits."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.line import Admitted, Line, Served
from benchmarks.traffic import Arrival
from worker.policy import Candidate, Policy
from worker.step_curve import StepCurve


@dataclass
class _Seat:
    admitted: Admitted
    remaining_steps: int

    def candidate(self, now: float) -> Candidate[None]:
        arrival = self.admitted.arrival
        age_seconds = now - self.admitted.at_seconds
        return Candidate(arrival.request_id, None, arrival.rows, self.remaining_steps, age_seconds)


def simulate(
    traffic: Sequence[Arrival], policy: Policy, seconds: Callable[[int], float], curve: StepCurve, max_seats: int
) -> Iterator[Served]:
    """Serve all of `traffic`, those first who are done first.

    A pass of so many rows takes `seconds(rows)`; the policy believes `curve`.
    """
    line = Line(traffic)
    seats: dict[str, _Seat] = {}
    now = pass_started_at = 0.0
    while line or seats:
        for admitted in line.admit(now, max_seats - len(seats), pass_started_at):
            seats[admitted.arrival.request_id] = _Seat(admitted, admitted.arrival.steps)
        if not seats:
            now = pass_started_at = line.next_at
            continue
        chosen = policy.choose([seat.candidate(now) for seat in seats.values()], lambda _: curve)
        pass_started_at = now
        now += seconds(sum(seats[request_id].admitted.arrival.rows for request_id in chosen))
        for request_id in chosen:
            seats[request_id].remaining_steps -= 1
            if not seats[request_id].remaining_steps:
                yield Served(seats.pop(request_id).admitted, now)
