"""Fill a model with weights that fit it: missing, unexpected and mis-shaped keys are errors, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from models.without_numbers import without_numbers

_SHOWN = 20

Module = TypeVar("Module", bound=nn.Module)


def build_with_weights(
    build: Callable[[], Module],
    state: Mapping[str, Tensor],
    source: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> Module:
    """The model that `build` makes, for evaluation, with the weights `state` from `source`.

    Raises ValueError as `check_shapes` does.
    """
    with without_numbers():
        module = build()
    check_shapes(source, {key: tensor.shape for key, tensor in state.items()}, module)
    module.load_state_dict({key: tensor.to(device, dtype) for key, tensor in state.items()}, assign=True)
    return module.eval()


def check_shapes(source: str, shapes: Mapping[str, Sequence[int]], model: nn.Module) -> None:
    """Raise ValueError, naming each wrong key, unless `shapes` are just those of the state dict of `model`."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    mis_shaped = [
        f"{name} is {tuple(shapes[name])} instead of {shape}"
        for name, shape in expected.items()
        if name in shapes and tuple(shapes[name]) != shape
    ]
    _raise_for(source, expected.keys() - shapes.keys(), shapes.keys() - expected.keys(), mis_shaped)


def check_finite(source: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError, which names the first, for weights with NaN or infinity."""
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        others = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise ValueError(
            f"NaN or infinity in {broken[0]}{others} of {source}: its training diverged or the file is damaged; "
            "use another checkpoint of it"
        )


def _raise_for(source: str, missing: Iterable[str], unexpected: Iterable[str], mis_shaped: Iterable[str]) -> None:
    kinds = {"missing": missing, "unexpected": unexpected, "mis-shaped": mis_shaped}
    problems = [f"{kind}: {problem}" for kind, found in kinds.items() for problem in sorted(found)]
    if problems:
        raise ValueError(f"the weights in {source} do not fit its config.json:{list_problems(problems)}")


def list_problems(problems: Sequence[str]) -> str:
    """The first problems, one on a line, and how many more there are."""
    left_out = len(problems) - _SHOWN
    shown = [*problems[:_SHOWN], *([f"and {left_out} more"] if left_out > 0 else [])]
    return "".join(f"\n  {problem}" for problem in shown)
