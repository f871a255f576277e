"""Summarise a run as one row of the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, quantiles

from benchmarks.scheduling.arrival_queue import Served


@dataclass(frozen=True)
class Result:
    """One scheduler (`policy`) under one traffic. Latency is from a request's arrival to its last step.

    `mean_ratio` is relative to one at a time. Waits are for a slot: in seconds, and in passes for requests that found a
    free slot.
    """

    case: str
    mix: str
    load: float
    policy: str
    requests: int
    requests_per_second: float
    mean_seconds: float
    p50_seconds: float
    p95_seconds: float
    mean_ratio: float
    p95_wait_seconds: float
    p95_wait_passes: float


def summarize(
    case: str,
    mix: str,
    load: float,
    policy: str,
    runs: Sequence[Sequence[Served]],
    baseline: Sequence[Sequence[Served]],
) -> Result:
    """Summarise the requests of all runs together."""
    served = [request for run in runs for request in run]
    latencies = [request.latency_seconds for request in served]
    admissions = [request.admitted for request in served]
    waited_passes = [
        admission.waited_seconds / admission.pass_seconds
        for admission in admissions
        if admission.slot_was_free and admission.pass_seconds
    ]
    return Result(
        case=case,
        mix=mix,
        load=load,
        policy=policy,
        requests=len(served),
        requests_per_second=round(len(served) / sum(_duration(run) for run in runs), 4),
        mean_seconds=round(fmean(latencies), 3),
        p50_seconds=round(median(latencies), 3),
        p95_seconds=round(_p95(latencies), 3),
        mean_ratio=round(fmean(latencies) / fmean(request.latency_seconds for run in baseline for request in run), 3),
        p95_wait_seconds=round(_p95([admission.waited_seconds for admission in admissions]), 3),
        p95_wait_passes=round(_p95(waited_passes), 2),
    )


def _duration(run: Sequence[Served]) -> float:
    return max(request.at_seconds for request in run) - min(request.admitted.arrival.at_seconds for request in run)


def _p95(values: Sequence[float]) -> float:
    """The 95th percentile; 0 for no values."""
    return quantiles(values, n=20, method="inclusive")[18] if len(values) > 1 else sum(values)


def print_results(results: Sequence[Result]) -> None:
    """Print the results as a Markdown table."""
    print("| case | lengths | load | scheduler | mean s | p50 s | p95 s | mean ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for result in results:
        case = f"{result.case} | {result.mix} | {result.load:.0%} | {result.policy}"
        times = f"{result.mean_seconds:.2f} | {result.p50_seconds:.2f} | {result.p95_seconds:.2f}"
        print(f"| {case} | {times} | {result.mean_ratio:.2f} |")
