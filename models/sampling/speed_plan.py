"""Speed plans: how many rows of each window are computed at each denoising step.

A plan is a text with one digit for each step:

    2   both rows of a request with guidance
    1   with guidance, the conditional row alone: the guidance difference (`models.sampling.guidance`) of the last step
        with both rows is used again; without guidance, the only row
    0   none: the clean prediction is extrapolated from the last computed ones

A step without rows is a matrix like any other step. The clean prediction p is linear in the latent x and the
transformer's output o, p = a x + b o. So an extrapolated p stands for the output o = (p - a x) / b, and the column of
the matrix that multiplies o is folded into those of x and of the remembered predictions. They are kept in the states
that the sampler itself does not use.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch

from models.sampling.table import (
    EARLIER,
    LATENT,
    MEMORY,
    MODEL_OUTPUT,
    NUM_INPUTS,
    NUM_STATES,
    PREDICTION,
    SamplerTable,
)


def check_plan(plan: str, table: SamplerTable, *, guided: bool) -> None:
    """Raise ValueError unless `plan` is one for the steps of `table`."""
    digits = "012" if guided else "01"
    if len(plan) != table.num_steps or set(plan) - set(digits):
        raise ValueError(
            f"got the speed plan {plan!r}: {table.num_steps} steps {'with' if guided else 'without'} guidance need as "
            f"many digits of {digits}"
        )
    if plan[0] != digits[-1] or plan[-1] == "0":
        raise ValueError(f"got the speed plan {plan!r}: the first digit must be {digits[-1]}, and the last not 0")
    if "0" not in plan:
        return
    fault = (
        "adds noise" if any(table.draws_noise) else "remembers too much" if len(remembered_states(table)) == 1 else None
    )
    if fault is not None:
        raise ValueError(f"got a speed plan that skips steps of {table.sampler}, which {fault}: use ddim or dpmpp_2m")


def with_plan(table: SamplerTable, plan: str) -> SamplerTable:
    """The table in which the steps without rows are extrapolated. It reads no output at these steps.

    Three remembered predictions give a parabola over the timesteps, two a line. A sampler that reads the last
    prediction itself gets the extrapolated one, which lies on the same curve and takes the place of a computed one.
    """
    if "0" not in plan:
        return table
    places = remembered_states(table)
    is_read = PREDICTION in _states_read(table)
    inputs = torch.eye(NUM_INPUTS, dtype=torch.float64)
    weights, timesteps = table.weights.double(), table.timesteps.tolist()
    computed: list[float] = []  # timesteps of the last computed predictions, the last first
    nodes: list[float] = []  # timesteps of the predictions in `places`
    for step, rows in enumerate(plan):
        matrix, timestep = weights[step], timesteps[step]
        clean = matrix[PREDICTION].clone()
        remembered = inputs[list(places[: len(nodes)])]
        if rows == "0":
            predicted = extrapolation_shares(nodes, timestep) @ remembered
            output = (predicted - clean[LATENT] * inputs[LATENT]) / clean[MODEL_OUTPUT]
            matrix += matrix[:, MODEL_OUTPUT, None] * (output - inputs[MODEL_OUTPUT])
            matrix[list(places)] = inputs[list(places)]
            if is_read:
                matrix[PREDICTION] = predicted
                nodes = [timestep, *nodes[1:]]
        else:
            matrix[PREDICTION] = clean
            for place, earlier in zip(places[1:], computed, strict=False):
                matrix[place] = extrapolation_shares(nodes, earlier) @ remembered
            computed = [timestep, *computed][: len(places)]
            nodes = computed
    return replace(table, weights=weights.to(torch.float32))


def remembered_states(table: SamplerTable) -> tuple[int, ...]:
    """The states for remembered predictions: the last one, and those that the sampler does not read."""
    read = _states_read(table)
    return PREDICTION, *(state for state in (EARLIER, MEMORY) if state not in read)


def _states_read(table: SamplerTable) -> set[int]:
    """The states that any step of the sampler reads, directly or indirectly, to compute the latent."""
    is_read = (table.weights != 0).any(dim=0).tolist()
    read = {LATENT}
    for _ in range(NUM_STATES):
        read |= {column for row in read for column in range(NUM_STATES) if is_read[row][column]}
    return read


def extrapolation_shares(nodes: Sequence[float], at: float) -> torch.Tensor:
    """The shares of the values at `nodes` in their polynomial's value at `at` (Lagrange). They add up to 1."""
    shares = [prod((at - other) / (node - other) for other in nodes if other != node) for node in nodes]
    return torch.tensor(shares, dtype=torch.float64)
