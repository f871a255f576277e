"""Who takes part in the next forward pass.

Short requests first, by the seconds that they still need, less a share of the seconds since they were admitted: a
request of 20 steps does not wait for one of 250, and none waits for ever. Every pass is chosen afresh, so a seat is
lent and taken back between any two steps, and the latents stay.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.step_curve import StepCurve

Group = TypeVar("Group", bound=Hashable)


@dataclass(frozen=True)
class Candidate(Generic[Group]):
    """An admitted request that could take part.

    Attributes:
        group: the batch key; only requests of one group share a pass.
        rows: of its next step, 2 when it is guided.
        age_seconds: since it was admitted, running or not.
        setup_seconds: before its group can run at all, such as for loading a model that is not in memory. It counts as
            work, so models are not exchanged for a small gain.
    """

    request_id: str
    group: Group
    rows: int
    remaining_steps: int
    age_seconds: float
    setup_seconds: float = 0.0


@dataclass(frozen=True)
class Policy:
    """Chooses the requests of each pass.

    A request that needs r seconds when it is admitted is overtaken by no request admitted more than r / ageing seconds
    later. So it is at work at the latest after that time and the work of the requests that were then admitted; with a
    bounded number of seats both are bounded, whatever else comes.

    Attributes:
        max_rows: the most rows of a pass.
        margin: a larger batch must raise the rows per second by more than this share.
        ageing: how many seconds of remaining work a second of age outweighs: near 0 is the shortest mean wait, and the
            larger the more it goes by age.
        expected: requests that will come while the present ones are at work; with more of them a pass is filled
            earlier, for throughput, and those that are here wait longer.
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
        curve_of: Callable[[Group], StepCurve],
        limit_of: Callable[[Group], int] | None = None,
    ) -> list[str]:
        """The ids of the next pass, most urgent first, all of one group; empty only when there are no candidates.

        `limit_of` gives the rows that a group has memory for, where they may be fewer than `max_rows`. A request takes
        part with all its rows or not at all; one that has more rows than the limit goes alone.
        """
        if not candidates:
            return []
        ordered = sorted(candidates, key=lambda candidate: self._urgency(candidate, curve_of(candidate.group)))
        first, curve = ordered[0], curve_of(ordered[0].group)
        limit = self.max_rows if limit_of is None else min(self.max_rows, limit_of(first.group))
        enough = curve.best_rows(max(1, limit), self.margin)
        chosen, rows = [first.request_id], first.rows
        for ahead, candidate in enumerate(ordered[1:], start=1):
            if rows >= enough:
                break
            fits = candidate.group == first.group and rows + candidate.rows <= limit
            if fits and self._pays(curve, rows, candidate.rows, ahead, len(ordered) - ahead):
                chosen.append(candidate.request_id)
                rows += candidate.rows
        return chosen

    def _pays(self, curve: StepCurve, rows: int, joining: int, ahead: int, behind: int) -> bool:
        """Whether `joining` more rows save those behind, their own request among them, more than all lose by it.

        The pass takes longer for everybody; for those behind another one, later, falls away.
        """
        saved = curve.seconds(joining)
        longer = curve.seconds(rows + joining) - curve.seconds(rows)
        behind_in_all = behind + self.expected
        return behind_in_all * saved > (ahead + behind_in_all) * longer

    def _urgency(self, candidate: Candidate[Group], curve: StepCurve) -> float:
        """Least is first."""
        remaining_seconds = candidate.remaining_steps * curve.seconds(candidate.rows) + candidate.setup_seconds
        return remaining_seconds - self.ageing * candidate.age_seconds
