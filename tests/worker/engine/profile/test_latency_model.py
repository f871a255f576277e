"""The curve is as measured, never falls, shrugs off outliers and follows a machine that changes its speed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.profile.latency_model import STALE_AFTER, WINDOW, LatencyModel


def measured(seconds_by_rows: dict[int, float]) -> LatencyModel:
    curve = LatencyModel()
    for rows, seconds in seconds_by_rows.items():
        for _ in range(3):
            curve.observe(rows, seconds)
    return curve


def test_as_measured_and_straight_between() -> None:
    curve = measured({2: 1.0, 4: 1.5, 8: 2.5})
    assert [curve.seconds(rows) for rows in (1, 2, 3, 4, 6, 8, 16)] == pytest.approx([0.5, 1, 1.25, 1.5, 2, 2.5, 4.5])


def test_before_any_measurement_the_largest_batch_is_tried() -> None:
    assert LatencyModel().best_rows(limit=8, margin=0.1) == 8


def test_with_one_measured_row_count_larger_batches_get_tried() -> None:
    assert measured({1: 0.3}).best_rows(limit=8, margin=0.1) == 8


@pytest.mark.parametrize(
    ("curve", "margin", "expected"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0}, 0.1, 1),  # grows with the rows: more of them only wait for each other
        ({1: 1.0, 2: 1.9, 4: 3.8, 8: 7.7}, 0.1, 1),  # 5 % is not worth it
        ({1: 1.0, 2: 1.9, 4: 3.8, 8: 7.7}, 0.01, 2),
        ({1: 1.0, 2: 1.0, 4: 1.0, 8: 1.0}, 0.1, 8),  # room for all: a larger batch costs nothing
        ({1: 1.0, 2: 1.0, 4: 2.0, 8: 4.0}, 0.1, 2),  # full from 2 rows on
        ({1: 0.025, 2: 0.042, 4: 0.076, 8: 0.144}, 0.1, 3),  # 8 + 17 b ms
        ({1: 0.025, 2: 0.042, 4: 0.076, 8: 0.144}, 0.0, 8),
    ],
)
def test_as_many_rows_as_pay(curve: dict[int, float], margin: float, expected: int) -> None:
    assert measured(curve).best_rows(limit=8, margin=margin) == expected


def test_an_outlier_does_nothing() -> None:
    curve = measured({1: 1.0, 2: 2.0})
    curve.observe(2, 50.0)
    assert curve.seconds(2) == 2.0


def test_one_slow_pass_does_not_keep_a_batch_from_being_tried_again() -> None:
    curve = measured({1: 1.0})
    curve.observe(8, 100.0)
    assert curve.best_rows(limit=8, margin=0.05) == 8
    curve.observe(8, 1.5)
    curve.observe(8, 1.5)
    assert curve.seconds(8) == 1.5


def test_a_lasting_change_is_learnt_and_carries_the_rest_of_the_curve_along() -> None:
    curve = measured({1: 1.0, 2: 1.5, 4: 2.0, 8: 4.0})
    for _ in range(STALE_AFTER + WINDOW):
        curve.observe(4, 2.0)
    for _ in range(WINDOW):
        curve.observe(4, 6.0)
    assert [curve.seconds(rows) for rows in (1, 2, 4, 8)] == pytest.approx([3, 4.5, 6, 12])
    for _ in range(WINDOW):
        curve.observe(4, 2.0)
    assert [curve.seconds(rows) for rows in (1, 2, 4, 8)] == pytest.approx([1, 1.5, 2, 4])


@pytest.mark.parametrize(("rows", "seconds"), [(0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan")), (1, float("inf"))])
def test_impossible_snapshots_are_refused(rows: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="rows are at least 1"):
        LatencyModel().observe(rows, seconds)


observations = st.lists(st.tuples(st.integers(1, 16), st.floats(1e-4, 1e3)), max_size=60)


@given(observations, st.integers(1, 32), st.floats(0, 1))
def test_whatever_is_observed_it_never_falls_and_a_best_batch_is_within_the_limit(
    passes: list[tuple[int, float]], limit: int, margin: float
) -> None:
    curve = LatencyModel()
    for rows, seconds in passes:
        curve.observe(rows, seconds)
    times = [curve.seconds(rows) for rows in range(1, limit + 1)]
    assert all(time > 0 for time in times)
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in pairwise(times))
    best = curve.best_rows(limit, margin)
    assert 1 <= best <= limit
    assert best / times[best - 1] * (1 + margin) >= max(rows / time for rows, time in enumerate(times, 1)) * (1 - 1e-9)
