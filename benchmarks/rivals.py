"""What the policy of `worker/policy.py` is compared with, behind the same `choose`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from worker.policy import Candidate, Group, Policy
from worker.step_curve import StepCurve

OLDEST_FIRST = attrgetter("age_seconds")


@dataclass(frozen=True)
class OneAtATime(Policy):
    """First come, first served, and nobody joins."""

    def choose(
        self,
        candidates: Sequence[Candidate[Group]],
        curve_of: Callable[[Group], StepCurve],
        limit_of: Callable[[Group], int] | None = None,
    ) -> list[str]:
        return [max(candidates, key=OLDEST_FIRST).request_id] if candidates else []


@dataclass(frozen=True)
class StaticBatches(Policy):
    """Up to `max_rows` of those that are there start together; nobody joins before the last of them is done.

    Who is done leaves, and is not computed on: kinder than padding every request to the longest of its batch.
    """

    batch: set[str] = field(default_factory=set, compare=False)

    def choose(
        self,
        candidates: Sequence[Candidate[Group]],
        curve_of: Callable[[Group], StepCurve],
        limit_of: Callable[[Group], int] | None = None,
    ) -> list[str]:
        self.batch.intersection_update(candidate.request_id for candidate in candidates)
        if not self.batch:
            self._start(sorted(candidates, key=OLDEST_FIRST, reverse=True))
        return sorted(self.batch)

    def _start(self, waiting: Sequence[Candidate[Group]]) -> None:
        rows = 0
        for candidate in waiting:
            if candidate.group == waiting[0].group and rows + candidate.rows <= self.max_rows:
                self.batch.add(candidate.request_id)
                rows += candidate.rows
