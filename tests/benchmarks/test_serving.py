"""The scheduling benchmark: exact traffic, a correct simulator, and complete results."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
import torch
from PIL import Image

from benchmarks import serving as benchmark
from benchmarks.scheduling.arrival_queue import Served
from benchmarks.scheduling.baselines import OneAtATime, StaticBatches
from benchmarks.scheduling.clocks import WallClock, WorkClock
from benchmarks.scheduling.simulator import simulate
from benchmarks.scheduling.traffic import Arrival, poisson_traffic
from tests.tiny_checkpoint import make_tiny_checkpoint
from worker.engine.profile.latency_model import LatencyModel
from worker.engine.scheduler import Scheduler


def flat(rows: int) -> float:
    """A pass of any size takes a second."""
    return 1.0


def run(traffic: list[Arrival], scheduler: Scheduler, max_slots: int = 16) -> dict[str, Served]:
    curve = LatencyModel()
    curve.observe(1, 1.0)
    curve.observe(8, 1.0)
    return {
        served.admitted.arrival.request_id: served for served in simulate(traffic, scheduler, flat, curve, max_slots)
    }


def test_traffic_has_exactly_the_load_and_lengths_of_its_name() -> None:
    traffic = poisson_traffic("mixed", load=0.8, num_requests=200, rows=2, step_seconds=0.5, seed=3)
    steps = [arrival.steps for arrival in traffic]
    assert {count: steps.count(count) for count in set(steps)} == {20: 60, 50: 120, 250: 20}
    assert fmean(steps) * 0.5 * len(traffic) / traffic[-1].at_seconds == pytest.approx(0.8)
    assert all(earlier.at_seconds < later.at_seconds for earlier, later in pairwise(traffic))
    assert traffic == poisson_traffic("mixed", load=0.8, num_requests=200, rows=2, step_seconds=0.5, seed=3)


THREE = [Arrival("long", 0.0, 10, 1), Arrival("short", 2.5, 2, 1), Arrival("late", 4.0, 2, 1)]


@pytest.mark.parametrize(
    ("scheduler", "done_at"),
    [
        (OneAtATime(), {"long": 10, "short": 12, "late": 14}),
        (StaticBatches(), {"long": 10, "short": 12, "late": 12}),
        (Scheduler(), {"long": 10, "short": 5, "late": 6}),
    ],
)
def test_each_scheduler_completes_requests_in_its_order(scheduler: Scheduler, done_at: dict[str, float]) -> None:
    assert {name: served.at_seconds for name, served in run(THREE, scheduler).items()} == done_at


def test_a_request_takes_a_free_slot_after_the_current_pass() -> None:
    admitted = run(THREE, Scheduler())["short"].admitted
    assert (admitted.waited_seconds, admitted.pass_seconds, admitted.slot_was_free) == (0.5, 1.0, True)


def test_a_request_waits_while_no_slot_is_free() -> None:
    admitted = run(THREE, Scheduler(), max_slots=1)["short"].admitted
    assert (admitted.at_seconds, admitted.slot_was_free) == (10, False)


def test_on_the_curve_of_a_gpu_mixed_lengths_take_half_the_time() -> None:
    case = benchmark.Case("GPU-like", benchmark.gpu_like_curve(), rows=1)
    results = {result.policy: result for result in benchmark.compare(case, "mixed", 0.8, 400, 2)}
    assert results[benchmark.OURS].mean_ratio < 0.5
    assert results[benchmark.ONE_AT_A_TIME].mean_ratio == 1
    assert results[benchmark.OURS].p95_wait_passes <= 1


def test_a_wall_clock_waits_and_a_work_clock_only_counts() -> None:
    wall, work = WallClock(), WorkClock()
    wall.wait_until(0.05)
    assert wall.now() >= 0.05
    work.wait_until(3600.0)
    work.wait_until(1.0)
    assert 3600 <= work.now() < 3660


def test_the_quick_run_uses_the_real_engine_and_writes_results(tmp_path: Path) -> None:
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    output = tmp_path / "new" / "serving.json"
    arguments = ["--quick", "--checkpoints", str(tmp_path / "checkpoints"), "--model", "tiny", "--output", str(output)]
    threads = torch.get_num_threads()
    try:
        benchmark.main([*arguments, "--threads", "1", "--clock", "work"])
    finally:
        torch.set_num_threads(threads)
    results = json.loads(output.read_text())
    assert results["machine"]["threads"] == 1
    assert len(results["results"]) == 3 * 2 * 4 * 3
    assert [pair["real"]["policy"] for pair in results["real_engine"]] == list(benchmark.SCHEDULERS) * 2
    assert all(0.3 < pair["simulated_to_real"] < 3 for pair in results["real_engine"])
    assert all(pair["real"]["requests"] == 4 for pair in results["real_engine"])
    with Image.open(output.with_suffix(".png")) as image:
        assert image.size == (1440, 1640)
        assert len(image.getcolors(maxcolors=1 << 24) or []) > 100
