"""Any set of candidates, and any stream of arrivals: limits hold, no request starves, and short requests go first."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.profile.latency_model import TRUSTED_AFTER, LatencyModel
from worker.engine.scheduler import Candidate, Scheduler

ROW_COUNTS = (1, 2, 4, 8)


def curve_through(fixed: float, per_row: float) -> LatencyModel:
    """t(rows) = fixed + per_row * rows seconds."""
    curve = LatencyModel()
    for rows in ROW_COUNTS:
        for _ in range(TRUSTED_AFTER):
            curve.observe(rows, fixed + per_row * rows)
    return curve


LINEAR = curve_through(0, 1)
ROOMY = curve_through(1, 0)
CURVES = {"linear": LINEAR, "roomy": ROOMY, "between": curve_through(0.8, 1.7)}


def candidate(request_id: str, steps: int = 50, rows: int = 1, age: float = 0, group: str = "linear") -> Candidate[str]:
    return Candidate(request_id, group, rows, steps, age)


def choose(scheduler: Scheduler, *candidates: Candidate[str]) -> list[str]:
    return scheduler.choose(candidates, CURVES.__getitem__)


def test_without_candidates_none_is_chosen() -> None:
    assert choose(Scheduler()) == []


def test_a_short_request_goes_before_a_long_one() -> None:
    assert choose(Scheduler(), candidate("long", 250), candidate("short", 20)) == ["short"]


def test_a_long_request_that_has_waited_goes_before_a_new_short_one() -> None:
    assert choose(Scheduler(ageing=0.5), candidate("new", 20), candidate("long", 250, age=500)) == ["long"]


def test_equal_requests_go_one_after_the_other_where_a_batch_does_not_pay() -> None:
    started, waiting = candidate("started", 30, age=60), candidate("waiting", 50, age=50)
    assert choose(Scheduler(), waiting, started) == ["started"]


def test_where_a_batch_costs_nothing_it_is_filled() -> None:
    waiting = [candidate(f"{number}", 50 + number, group="roomy") for number in range(10)]
    assert choose(Scheduler(max_rows=8), *reversed(waiting)) == [f"{number}" for number in range(8)]


def test_the_more_are_waiting_the_larger_the_batch() -> None:
    """A pass of 2 rows saves 0.8 of the 2.5 s of another one, and costs the first request 1.7 s."""
    waiting = [candidate(f"{number}", 50 + number, group="between") for number in range(12)]
    sizes = [len(choose(Scheduler(max_rows=8, expected=0), *waiting[:number])) for number in range(1, 13)]
    assert sizes == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert len(choose(Scheduler(max_rows=8, expected=2), *waiting[:2])) == 2


def test_a_step_without_rows_joins_any_pass_of_its_group() -> None:
    running, free, other = (
        candidate("running", 20),
        replace(candidate("free", 30, rows=0), full_rows=1),
        candidate("other", 9, group="roomy"),
    )
    assert choose(Scheduler(), running, free) == ["running", "free"]
    assert choose(Scheduler(), replace(free, remaining_steps=10), running) == ["free", "running"]
    assert choose(Scheduler(), free, other) == ["other"]


def test_the_rest_of_a_plan_counts_in_full_steps() -> None:
    sparse = replace(candidate("sparse", rows=1), remaining_steps=15.0, full_rows=2)
    assert choose(Scheduler(), candidate("exact", 20, rows=2), sparse) == ["sparse"]
    assert choose(Scheduler(), candidate("exact", 10, rows=2), sparse) == ["exact"]


def test_no_more_are_taken_than_the_margin_says() -> None:
    waiting = [candidate(f"{number}", group="between") for number in range(100)]
    sizes = [len(choose(Scheduler(max_rows=8, margin=margin), *waiting)) for margin in (0, 0.05, 0.1, 0.5)]
    assert sizes == [8, 5, 3, 1]


def test_seconds_count_and_not_steps() -> None:
    slow = candidate("slow", 40, rows=2, group="linear")  # 80 s
    quick = candidate("quick", 60, rows=2, group="roomy")  # 60 s
    assert choose(Scheduler(), slow, quick) == ["quick"]


def test_a_guided_request_takes_part_with_both_rows_or_not_at_all() -> None:
    waiting = [
        candidate(name, steps, rows, group="roomy") for name, steps, rows in (("a", 10, 2), ("b", 20, 2), ("c", 30, 1))
    ]
    assert choose(Scheduler(max_rows=3), *waiting) == ["a", "c"]


def test_a_group_with_less_memory_gets_fewer_rows() -> None:
    waiting = [candidate(f"{number}", group="roomy") for number in range(8)]
    assert len(Scheduler(max_rows=8).choose(waiting, CURVES.__getitem__, lambda group: 3)) == 3


@pytest.mark.parametrize("wrong", [{"max_rows": 0}, {"margin": -0.1}, {"ageing": 0.0}, {"expected": -1}])
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="max_rows is at least 1"):
        Scheduler(**wrong)  # type: ignore[arg-type]


policies = st.builds(Scheduler, max_rows=st.integers(2, 8), margin=st.floats(0, 1), ageing=st.floats(0.05, 2))
crowds = st.lists(
    st.builds(
        Candidate[str],
        request_id=st.uuids().map(str),
        group=st.sampled_from(sorted(CURVES)),
        rows=st.integers(1, 2),
        remaining_steps=st.integers(1, 1000),
        age_seconds=st.floats(0, 1e5),
    ),
    max_size=20,
    unique_by=lambda candidate: candidate.request_id,
)


@given(policies, crowds, st.integers(1, 8))
def test_of_any_crowd_some_of_one_group_are_chosen_within_the_limits(
    scheduler: Scheduler, crowd: list[Candidate[str]], memory_rows: int
) -> None:
    chosen = scheduler.choose(crowd, CURVES.__getitem__, lambda group: memory_rows)
    assert bool(chosen) == bool(crowd)
    assert max(Counter(chosen).values(), default=1) == 1
    taking_part = [candidate for candidate in crowd if candidate.request_id in chosen]
    assert len(taking_part) == len(chosen)
    assert len({candidate.group for candidate in taking_part}) <= 1
    rows = sum(candidate.rows for candidate in taking_part)
    assert rows <= min(scheduler.max_rows, memory_rows) or len(chosen) == 1


@dataclass
class Admitted:
    group: str
    rows: int
    steps: int
    admitted_at: float


arrivals = st.tuples(st.sampled_from(sorted(CURVES)), st.integers(1, 2), st.integers(1, 30))


@given(policies, st.lists(arrivals, min_size=1, max_size=4), arrivals, arrivals)
def test_with_slots_always_full_no_request_starves(
    scheduler: Scheduler,
    early: list[tuple[str, int, int]],
    watched: tuple[str, int, int],
    newcomer: tuple[str, int, int],
) -> None:
    """Each free slot is taken at once, the worst case; the bound is the one that `Scheduler` documents."""
    slots = {f"early-{number}": Admitted(*arrival, 0.0) for number, arrival in enumerate(early)}
    slots["watched"] = Admitted(*watched, 0.0)
    own_seconds = watched[2] * CURVES[watched[0]].seconds(watched[1])
    rivals_until = own_seconds / scheduler.ageing
    now, number, passes_left = 0.0, 0, None
    while "watched" in slots:
        if now > rivals_until and passes_left is None:
            passes_left = sum(admitted.steps for admitted in slots.values())
        if passes_left is not None:
            assert passes_left > 0, "work that was not there at the bound came first"
            passes_left -= 1
        now += run_pass(scheduler, slots, now, CURVES.__getitem__)
        while len(slots) < len(early) + 1 and "watched" in slots:
            slots[f"new-{number}"] = Admitted(*newcomer, now)
            number += 1


def run_pass(
    scheduler: Scheduler, slots: dict[str, Admitted], now: float, curve_of: Callable[[str], LatencyModel]
) -> float:
    """Advance the chosen requests by one step, remove those that are complete, return the seconds it takes."""
    candidates = [Candidate(name, it.group, it.rows, it.steps, now - it.admitted_at) for name, it in slots.items()]
    chosen = [(name, slots[name]) for name in scheduler.choose(candidates, curve_of)]
    for name, admitted in chosen:
        admitted.steps -= 1
        if not admitted.steps:
            del slots[name]
    return curve_of(chosen[0][1].group).seconds(sum(admitted.rows for _, admitted in chosen))
