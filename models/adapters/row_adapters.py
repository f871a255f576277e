"""Adapters of the rows of one pass: each row has its own, or none (batched gather, as in Punica, arXiv 2310.18547).

A pass computes `x Wᵀ` for all rows at once. For the rows with adapters, `x A[i]ᵀ B[i]ᵀ` is then added, where i is the
adapter set of the row. The A and B of all sets are stacked.

Shapes: M rows of the model's batch, P of them with adapters, S adapter sets, L tokens of a row, I inputs and O outputs
of a linear layer, R ranks of all its updates together, r of one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.adapters.adapter import LowRankUpdate, ScaledAdapter
from models.attention.hybrid import Concat

AdapterSet = tuple[ScaledAdapter, ...]


@dataclass(frozen=True)
class _Stack:
    """The updates of one linear layer by all adapter sets. Missing ones, and missing ranks, are zeros.

    Attributes:
        down: (S, R, I).
        ups: first output and (S, O, r) of each part of the outputs; their r together are R.
    """

    down: Tensor
    ups: tuple[tuple[int, Tensor], ...]

    def add_to(self, y: Tensor, x: Tensor, rows: slice | Tensor, sets: Tensor) -> None:
        """Add the updates of `sets` (P,) to the `rows` of `y` (M, ..., O), in place. `x` (M, ..., I)."""
        tokens = x[rows].reshape(len(sets), -1, x.shape[-1])  # (P, L, I)
        all_outputs = y.view(len(y), -1, y.shape[-1])  # (M, L, O)
        outputs = all_outputs[rows]  # (P, L, O): a view for a slice, otherwise a copy
        hidden = torch.bmm(tokens, self.down[sets].mT)  # (P, L, R): x A[i]ᵀ
        parts = torch.split(hidden, [up.shape[-1] for _, up in self.ups], dim=-1)
        for (first, up), part in zip(self.ups, parts, strict=True):
            outputs[..., first : first + up.shape[1]].baddbmm_(part, up[sets].mT)  # + x A[i]ᵀ B[i]ᵀ
        if isinstance(rows, Tensor):
            all_outputs[rows] = outputs


class RowAdapters:
    """The adapter sets of the rows of a pass, stacked."""

    def __init__(self, sets: Sequence[AdapterSet]) -> None:
        """`sets` holds one for each row, and at least one that is not empty. All adapters are of one transformer."""
        self._distinct = list(dict.fromkeys(adapters for adapters in sets if adapters))
        names = dict.fromkeys(name for adapters in self._distinct for one in adapters for name in one.adapter.updates)
        self._stacks = {name: _stack([_updates(adapters, name) for adapters in self._distinct]) for name in names}
        self._place(sets)

    def _place(self, sets: Sequence[AdapterSet]) -> None:
        device = next(iter(self._stacks.values())).down.device
        self._sets = tuple(sets)
        adapted = [row for row, adapters in enumerate(sets) if adapters]
        self._indices = torch.tensor([self._distinct.index(sets[row]) for row in adapted], device=device)  # (P,)
        is_run = adapted == list(range(adapted[0], adapted[-1] + 1))
        self._rows = slice(adapted[0], adapted[-1] + 1) if is_run else torch.tensor(adapted, device=device)

    @staticmethod
    def of(sets: Sequence[AdapterSet]) -> RowAdapters | None:
        """None where no row has an adapter."""
        return RowAdapters(sets) if any(sets) else None

    def part(self, rows: slice) -> RowAdapters | None:
        """Those of some of the rows, which share the stacks. None where no row has an adapter."""
        if not any(self._sets[rows]):
            return None
        part = copy(self)
        part._place(self._sets[rows])
        return part

    @contextmanager
    def applied_to(self, transformer: nn.Module) -> Iterator[None]:
        """During the block, the linear layers of `transformer` add the updates. It runs one pass, on these rows."""
        handles = []
        try:
            for name, stack in self._stacks.items():
                module, inputs_of = _hook_point(transformer, name)
                handles.append(module.register_forward_hook(self._hook(stack, inputs_of)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, stack: _Stack, inputs_of: Callable[[Any], Tensor]) -> Callable[[nn.Module, Any, Tensor], None]:
        def add(module: nn.Module, arguments: Any, output: Tensor) -> None:
            stack.add_to(output, inputs_of(arguments), self._rows, self._indices)

        return add


def _hook_point(transformer: nn.Module, name: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """The module whose output is that of the linear layer `name`, and how its arguments become the layer's input."""
    parent = transformer.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, Concat):  # computes its linear layer as two products, without a call of the layer
        return parent, lambda arguments: torch.cat(arguments[1:], dim=-1)
    return transformer.get_submodule(name), lambda arguments: arguments[0]


def _updates(adapters: AdapterSet, name: str) -> dict[int, LowRankUpdate]:
    """The updates of one linear layer by all adapters of a set together, by first output: their ranks side by side."""
    parts: dict[int, list[LowRankUpdate]] = {}
    for scaled in adapters:
        for part in scaled.adapter.updates.get(name, ()):
            scaled_part = LowRankUpdate(part.first_output, part.down, part.up * scaled.scale)
            parts.setdefault(part.first_output, []).append(scaled_part)
    return {
        first: LowRankUpdate(
            first, torch.cat([part.down for part in found]), torch.cat([part.up for part in found], dim=1)
        )
        for first, found in parts.items()
    }


def _stack(sets: Sequence[dict[int, LowRankUpdate]]) -> _Stack:
    downs, ups = [], []
    for first in sorted({first for updates in sets for first in updates}):
        parts = [updates.get(first) for updates in sets]
        like = next(part for part in parts if part is not None)
        rank = max(len(part.down) for part in parts if part is not None)
        down = like.down.new_zeros(len(sets), rank, like.down.shape[1])
        up = like.up.new_zeros(len(sets), like.up.shape[0], rank)
        for index, part in enumerate(parts):
            if part is not None:
                down[index, : len(part.down)] = part.down
                up[index, :, : len(part.down)] = part.up
        downs.append(down)
        ups.append((first, up))
    return _Stack(torch.cat(downs, dim=1), tuple(ups))
