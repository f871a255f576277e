"""Poisson arrivals of requests, with equal or mixed lengths."""

from dataclasses import dataclass
from random import Random
from statistics import mean

MIXES: dict[str, dict[int, float]] = {  # share of the requests by their inference steps
    "equal": {50: 1.0},
    "mixed": {20: 0.3, 50: 0.6, 250: 0.1},
}


@dataclass(frozen=True)
class Arrival:
    """A request that arrives `at_seconds` after the start. `rows` is 2 with guidance, else 1."""

    request_id: str
    at_seconds: float
    steps: int
    rows: int


def poisson_traffic(
    mix: str, load: float, num_requests: int, rows: int, step_seconds: float, seed: int
) -> list[Arrival]:
    """Make requests that keep a device busy for the share `load` of the time, one at a time at `step_seconds` a step.

    The shares of the mix are exact, and the order is random. The times between arrivals are exponential, scaled to give
    exactly this load: a short random trace would miss it.
    """
    random = Random(seed)
    steps = _exact_shares(MIXES[mix], num_requests)
    random.shuffle(steps)
    gaps = [random.expovariate(1.0) for _ in steps]
    stretch = mean(steps) * step_seconds / load / mean(gaps)
    now, arrivals = 0.0, []
    for number, (num_steps, gap) in enumerate(zip(steps, gaps, strict=True)):
        now += gap * stretch
        arrivals.append(Arrival(f"{number}", now, num_steps, rows))
    return arrivals


def _exact_shares(mix: dict[int, float], num_requests: int) -> list[int]:
    """`num_requests` step counts. The most common one takes the remainder of rounding."""
    steps = [count for count, share in mix.items() for _ in range(int(share * num_requests))]
    common = max(mix, key=mix.__getitem__)
    return steps + [common] * (num_requests - len(steps))
