"""Compare schedulers on the same traffic in one run: one request at a time, static batches, and the worker's own.

    python -m benchmarks.serving [--model demo-class] [--quick]
    python -m benchmarks.serving --threads 1 --clock work         on a machine with other work

Requests arrive at random (Poisson) at 30 to 95 % of the throughput of one at a time, with equal and with mixed lengths.
Most runs are simulated, with `worker/engine/scheduler.py` itself and two curves t(rows) of the seconds of a pass: one
measured here with a real model, and one like a GPU's. A run of the real engine at 80 %, in wall-clock time, shows the
accuracy of the simulation. Results go to `benchmarks/results/serving.json` and `serving.png`.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.parts.machine import describe_machine
from benchmarks.scheduling.arrival_queue import Served
from benchmarks.scheduling.baselines import OneAtATime, StaticBatches
from benchmarks.scheduling.chart import Panel, save_chart
from benchmarks.scheduling.clocks import Clock, WallClock, WorkClock
from benchmarks.scheduling.real_engine import RealEngine
from benchmarks.scheduling.simulator import simulate
from benchmarks.scheduling.summary import Result, print_results, summarize
from benchmarks.scheduling.traffic import MIXES, Arrival, poisson_traffic
from worker.engine.engine import EngineSettings
from worker.engine.profile.latency_model import LatencyModel
from worker.engine.scheduler import Scheduler
from worker.loading.model_cache import load_models

LOADS = (0.3, 0.7, 0.8, 0.95)
REAL_LOAD = 0.8
ONE_AT_A_TIME, OURS = "one at a time", "ours"
SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    ONE_AT_A_TIME: OneAtATime,
    "static batches": StaticBatches,
    OURS: Scheduler,
}
CLOCKS: dict[str, type[Clock]] = {"wall": WallClock, "work": WorkClock}
Runs = dict[str, list[Served]]  # by scheduler
MAX_SLOTS = EngineSettings().max_slots
MAX_ROWS = Scheduler().max_rows
PASSES, ROUNDS = 5, 3  # for each row count, to measure t(rows); the rounds average out other load
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Case:
    """A curve and the rows of each request: 2 with guidance, else 1."""

    name: str
    curve: LatencyModel
    rows: int

    @property
    def step_seconds(self) -> float:
        """Seconds of a step of a request that runs alone."""
        return self.curve.seconds(self.rows)


MakeEngine = Callable[[Scheduler], RealEngine]


def measure_curve(make_engine: MakeEngine) -> LatencyModel:
    """Measure t(rows) of the real engine, including its own work."""
    curve = LatencyModel()
    for _ in range(ROUNDS):
        for rows in tqdm(range(1, MAX_ROWS + 1), desc="t(rows)"):
            guided = [Arrival(f"{number}", 0.0, PASSES, rows=2) for number in range(rows // 2)]
            unguided = [Arrival("last", 0.0, PASSES, rows=1)] * (rows % 2)
            engine = make_engine(StaticBatches())
            list(engine.serve(guided + unguided))
            curve.observe(rows, engine.median_seconds(rows))
    return curve


def gpu_like_curve() -> LatencyModel:
    """A curve of 8 + 17 b milliseconds for b rows."""
    curve = LatencyModel()
    for rows in range(1, MAX_ROWS + 1):
        curve.observe(rows, 0.008 + 0.017 * rows)
    return curve


def compare(case: Case, mix: str, load: float, num_requests: int, num_traces: int) -> Iterator[Result]:
    """Simulate each scheduler on the same traces."""
    traces = [
        poisson_traffic(mix, load, num_requests, case.rows, case.step_seconds, seed) for seed in range(num_traces)
    ]
    runs = {
        name: [list(simulate(trace, make_scheduler(), case.curve.seconds, case.curve, MAX_SLOTS)) for trace in traces]
        for name, make_scheduler in SCHEDULERS.items()
    }
    for name, served in runs.items():
        yield summarize(case.name, mix, load, name, served, runs[ONE_AT_A_TIME])


@dataclass(frozen=True)
class Check:
    """A run of the real engine, and a simulation of the same traffic with the mean pass times of that run."""

    real: Result
    simulated: Result
    simulated_to_real: float
    passes_by_rows: dict[int, int]


def check(case: Case, make_engine: MakeEngine, mix: str, num_requests: int) -> list[Check]:
    """Run each scheduler in the real engine, one after the other."""
    traffic = poisson_traffic(mix, REAL_LOAD, num_requests, case.rows, case.step_seconds, seed=0)
    engines = {name: make_engine(make_scheduler()) for name, make_scheduler in SCHEDULERS.items()}
    real = {
        name: list(tqdm(engine.serve(traffic), f"{mix}, {name}", len(traffic), unit="request"))
        for name, engine in engines.items()
    }
    simulated = {
        name: list(simulate(traffic, make_scheduler(), engines[name].seconds_like(case.curve), case.curve, MAX_SLOTS))
        for name, make_scheduler in SCHEDULERS.items()
    }
    return [_pair(mix, name, real, simulated, engines[name].num_passes) for name in SCHEDULERS]


def _pair(mix: str, name: str, real: Runs, simulated: Runs, passes_by_rows: dict[int, int]) -> Check:
    measured = summarize("real engine", mix, REAL_LOAD, name, [real[name]], [real[ONE_AT_A_TIME]])
    predicted = summarize("simulated", mix, REAL_LOAD, name, [simulated[name]], [simulated[ONE_AT_A_TIME]])
    return Check(measured, predicted, round(predicted.mean_seconds / measured.mean_seconds, 3), passes_by_rows)


def draw(results: Sequence[Result], cases: Sequence[Case], path: Path) -> None:
    """Plot mean latency by load, relative to the time of a mean request that runs alone."""
    panels = []
    for case in cases:
        for mix in MIXES:
            mean_steps = sum(steps * share for steps, share in MIXES[mix].items())
            lines = {
                scheduler: [
                    (result.load, result.mean_seconds / (mean_steps * case.step_seconds))
                    for result in results
                    if (result.case, result.mix, result.policy) == (case.name, mix, scheduler)
                ]
                for scheduler in SCHEDULERS
            }
            panels.append(Panel(f"{case.name}: {mix} lengths", lines))
    save_chart(panels, columns=len(MIXES), y_label="mean latency / time alone", path=path)


def simulate_all(cases: Sequence[Case], num_requests: int, num_traces: int) -> list[Result]:
    """Simulate every case, mix and load."""
    settings = tqdm([(case, mix, load) for case in cases for mix in MIXES for load in LOADS], "simulated", unit="case")
    return [result for case, mix, load in settings for result in compare(case, mix, load, num_requests, num_traces)]


def check_all(make_engine: MakeEngine, num_requests: int) -> list[Check]:
    """Run both mixes in the real engine. An empty list for no requests."""
    if not num_requests:
        return []
    case = Case("real engine", measure_curve(make_engine), rows=2)
    return [pair for mix in MIXES for pair in check(case, make_engine, mix, num_requests)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--model", default="demo-class")
    parser.add_argument("--frames", type=int, default=16, help="frames of a video, for the measured t(rows)")
    parser.add_argument("--requests", type=int, default=1000, help="requests of a simulated trace")
    parser.add_argument("--traces", type=int, default=3, help="traces for each load")
    parser.add_argument("--real-requests", type=int, default=60, help="requests of a run of the real engine, 0: no run")
    parser.add_argument(
        "--real-frames", type=int, default=4, help="frames of a video there; fewer frames shorten the steps"
    )
    parser.add_argument("--threads", type=int, default=None, help="default: one per core")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="work: for a busy machine, with --threads 1")
    parser.add_argument("--quick", action="store_true", help="a short run, as a test")
    parser.add_argument("--output", type=Path, default=RESULTS / "serving.json")
    options = parser.parse_args(arguments)
    if options.quick:
        options.requests, options.traces, options.real_requests = 40, 1, 4
        options.frames = options.real_frames = 1
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    machine = describe_machine("cpu") | {"clock": options.clock}
    models = load_models(options.checkpoints, torch.device("cpu"), torch.float32)

    def make_engine(scheduler: Scheduler, num_frames: int) -> RealEngine:
        return RealEngine(models, options.model, num_frames, scheduler, MAX_SLOTS, CLOCKS[options.clock])

    measured = measure_curve(partial(make_engine, num_frames=options.frames))
    cases = [
        Case("measured, guided", measured, rows=2),
        Case("GPU-like", gpu_like_curve(), rows=1),
        Case("GPU-like, guided", gpu_like_curve(), rows=2),
    ]
    results = simulate_all(cases, options.requests, options.traces)
    checks = check_all(partial(make_engine, num_frames=options.real_frames), options.real_requests)

    print_results(results + [result for pair in checks for result in (pair.real, pair.simulated)])
    draw(results, cases, options.output.with_suffix(".png"))
    document = {
        "machine": machine,
        "model": options.model,
        "frames": options.frames,
        "real_frames": options.real_frames,
        "slots": MAX_SLOTS,
        "max_rows": MAX_ROWS,
        "seconds_by_rows": [round(measured.seconds(rows), 5) for rows in range(1, MAX_ROWS + 1)],
        "results": [asdict(result) for result in results],
        "real_engine": [asdict(pair) for pair in checks],
    }
    options.output.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
