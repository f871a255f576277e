"""The search for speed plans, from the clean predictions of exact runs.

As in LeMiCa, the schedule is searched offline: the steps left out are those whose predictions follow from the computed
ones. Their error is that of the extrapolation, which inner products of the recorded predictions give without a run.

Shape legend: N steps, B videos.
"""

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

from jobs.speed_plans import FIRST_STEPS
from models.sampling.speed_plan import extrapolation_shares, remembered_states
from models.sampling.table import LATENT, MODEL_OUTPUT, PREDICTION, SamplerTable


def find_candidates(table: SamplerTable, predictions: Tensor, max_rows: int) -> Iterator[tuple[str, str]]:
    """Yield plans of at most `max_rows` rows of a guided window, each with the name of its family.

    `predictions` (B, N - 1, ...) are the clean latents that the exact runs predicted, without the last step.
    """
    steps = table.num_steps
    num_full = max_rows - steps
    if num_full >= 1:
        yield "guidance reuse", _digits(steps, range(steps), _spread(range(steps), num_full))
    if len(remembered_states(table)) == 1 or any(table.draws_noise):
        return
    even = _even_steps(steps, max_rows // 2)
    yield "even step skipping", _digits(steps, even, set(even))
    error_of = _step_errors(table, predictions)
    for family, rows_per_step in (("step skipping", 2.0), ("step skipping and guidance reuse", 1.5)):
        count = min(steps, int(max_rows / rows_per_step))
        computed = choose_steps(steps, count, error_of)
        yield family, _digits(steps, computed, _spread(computed, max_rows - count))


def _even_steps(steps: int, count: int) -> list[int]:
    """The first steps, the last one, and evenly spread ones between them."""
    spread = max(1, count - FIRST_STEPS)
    gap = (steps - FIRST_STEPS) / spread
    return [*range(FIRST_STEPS), *(FIRST_STEPS - 1 + round(gap * (index + 1)) for index in range(spread))]


def choose_steps(steps: int, count: int, error_of: Callable[[int, tuple[int, ...]], float]) -> list[int]:
    """The `count` steps to compute: the others are left out one by one, each time the one that costs least."""
    computed = list(range(steps))
    skipped: set[int] = set()

    def total_error(candidate: int) -> float:
        left = [step for step in computed if step != candidate]
        return sum(error_of(step, tuple(left[: bisect(left, step)])) for step in (*skipped, candidate))

    while len(computed) > max(count, FIRST_STEPS + 1):
        least = min(computed[FIRST_STEPS:-1], key=total_error)
        computed.remove(least)
        skipped.add(least)
    return computed


class StepError:
    """The squared change of the latent when a step's prediction is extrapolated from computed steps before it."""

    def __init__(self, table: SamplerTable, products: Tensor) -> None:
        """`products` (N - 1, N - 1): the inner products of the predictions of two steps, over all videos."""
        self._timesteps = table.timesteps.tolist()
        self._products = products
        self._num_remembered = len(remembered_states(table))
        weights = table.weights.double()
        self._gains = (weights[:, LATENT, MODEL_OUTPUT] / weights[:, PREDICTION, MODEL_OUTPUT]).square().tolist()
        self._error = cache(self._compute)

    def __call__(self, step: int, computed: tuple[int, ...]) -> float:
        return self._error(step, computed[-self._num_remembered :])

    def _compute(self, step: int, nodes: tuple[int, ...]) -> float:
        shares = extrapolation_shares([self._timesteps[node] for node in nodes], self._timesteps[step])
        places = [*nodes, step]
        difference = torch.cat([shares, -torch.ones(1, dtype=torch.float64)])
        error = difference @ self._products[places][:, places] @ difference
        return float(self._gains[step] * error)


def _step_errors(table: SamplerTable, predictions: Tensor) -> StepError:
    flat = predictions.flatten(2).double().transpose(0, 1).flatten(1)  # (N - 1, everything else)
    return StepError(table, flat @ flat.T)


def _spread(steps: Sequence[int], count: int) -> set[int]:
    """`count` of `steps`, evenly spread, the first among them."""
    count = min(count, len(steps))
    return {steps[index * len(steps) // count] for index in range(count)}


def _digits(num_steps: int, computed: Sequence[int], full: set[int]) -> str:
    return "".join("2" if step in full else "1" if step in computed else "0" for step in range(num_steps))
