"""The scheduler: which requests take part in the next forward pass.

Shortest remaining time first, with ageing: requests are ordered by the seconds that they still need, minus a share of
the seconds since their admission. A request of 20 steps does not wait for one of 250, and none starves. The choice is
made before every pass; a request that is left out keeps its latents.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.engine.profile.latency_model import LatencyModel

Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True)
class Candidate(Generic[Group]):
    """An active request that can take part in the next pass.

    Attributes:
        group: The batch key. Only requests of one group share a pass.
        rows: Rows of its next step: 2 with guidance, otherwise 1. A speed plan has steps with fewer rows, or none.
        remaining_steps: Steps that are not done. A step with half of the rows counts as half a step.
        age_seconds: Time since its admission, running or not.
        full_rows: Rows of a step that is computed in full, if they are not `rows`.
    """

    request_id: str
    group: Group
    rows: int
    remaining_steps: float
    age_seconds: float
    full_rows: int | None = None


@dataclass(frozen=True)
class Scheduler:
    """Chooses the requests of each pass.

    A request that needs r seconds at its admission is overtaken by no request that is admitted more than r / ageing
    seconds later. It therefore runs at the latest after that time plus the work of the requests that are active then.
    The number of slots bounds both, whatever else arrives.

    Attributes:
        max_rows: Maximum rows of a pass.
        margin: A larger batch must raise the throughput by more than this share.
        ageing: Seconds of remaining time that one second of age outweighs. Near 0 the mean wait is shortest; a larger
            value moves the order towards first come, first served.
        expected: Number of requests expected to arrive while the present ones run. A larger value fills passes
            earlier, for throughput, at the cost of the latency of the present requests.
    """

    max_rows: int = 8
    margin: float = 0.05
    ageing: float = 0.1
    expected: float = 3

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.margin < 0 or self.ageing <= 0 or self.expected < 0:
            raise ValueError(
                f"got {self}: max_rows is at least 1, margin and expected are at least 0, and ageing is above 0"
            )

    def choose(
        self,
        candidates: Sequence[Candidate[Group]],
        latency_of: Callable[[Group], LatencyModel],
        row_limit_of: Callable[[Group], int] | None = None,
    ) -> list[str]:
        """Choose the requests of the next pass.

        A request takes part with all its rows or not at all. One with more rows than the limit runs alone.

        Args:
            candidates: All requests that can run now.
            latency_of: The latency model of a group.
            row_limit_of: The rows of a group for which there is memory. `max_rows` applies as well.

        Returns:
            Ids of requests of one group, the most urgent first; empty only without candidates.
        """
        if not candidates:
            return []
        ordered = sorted(candidates, key=lambda candidate: self._urgency(candidate, latency_of(candidate.group)))
        first, latency = ordered[0], latency_of(ordered[0].group)
        limit = self.max_rows if row_limit_of is None else min(self.max_rows, row_limit_of(first.group))
        enough = latency.best_rows(max(1, limit), self.margin)
        chosen, rows = [first.request_id], first.rows
        for num_ahead, candidate in enumerate(ordered[1:], start=1):
            if candidate.group != first.group or rows + candidate.rows > limit:
                continue
            # A step without rows costs nothing: it joins any pass, and does not keep others out of its own.
            is_free = candidate.rows == 0 or rows == 0
            behind = len(ordered) - num_ahead
            if is_free or (rows < enough and self._pays(latency, rows, candidate.rows, num_ahead, behind)):
                chosen.append(candidate.request_id)
                rows += candidate.rows
        return chosen

    def _pays(self, latency: LatencyModel, rows: int, joining: int, num_ahead: int, num_behind: int) -> bool:
        """Whether `joining` more rows save the requests behind more time than all requests lose.

        The pass takes longer for every request. The requests behind, the joining one among them, save a later pass.
        """
        saved = latency.seconds(joining)
        lost = latency.seconds(rows + joining) - latency.seconds(rows)
        num_later = num_behind + self.expected
        return num_later * saved > (num_ahead + num_later) * lost

    def _urgency(self, candidate: Candidate[Group], latency: LatencyModel) -> float:
        """The sort key; the smallest is first."""
        step_seconds = latency.seconds(candidate.full_rows or candidate.rows)
        remaining_seconds = candidate.remaining_steps * step_seconds
        return remaining_seconds - self.ageing * candidate.age_seconds
