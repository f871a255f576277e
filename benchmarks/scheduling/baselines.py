"""Baselines for the scheduler of `worker/engine/scheduler.py`, with the same interface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from worker.engine.profile.latency_model import LatencyModel
from worker.engine.scheduler import Candidate, Group, Scheduler

OLDEST_FIRST = attrgetter("age_seconds")


@dataclass(frozen=True)
class OneAtATime(Scheduler):
    """First come, first served, one request at a time."""

    def choose(
        self,
        candidates: Sequence[Candidate[Group]],
        latency_of: Callable[[Group], LatencyModel],
        row_limit_of: Callable[[Group], int] | None = None,
    ) -> list[str]:
        return [max(candidates, key=OLDEST_FIRST).request_id] if candidates else []


@dataclass(frozen=True)
class StaticBatches(Scheduler):
    """Start up to `max_rows` rows together, and admit no request until all of the batch are completed.

    A completed request leaves the batch. This favours the baseline: others pad every request to the longest one.
    """

    batch: set[str] = field(default_factory=set, compare=False)

    def choose(
        self,
        candidates: Sequence[Candidate[Group]],
        latency_of: Callable[[Group], LatencyModel],
        row_limit_of: Callable[[Group], int] | None = None,
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
