"""An adapter: low-rank updates of a transformer's linear layers (LoRA, Hu et al., arXiv 2106.09685, 4.1).

Shapes: I inputs and O outputs of a linear layer, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.config import TransformerConfig


@dataclass(frozen=True)
class LowRankUpdate:
    """`up down x` is added to the outputs of a linear layer from `first_output` on.

    A fused layer, such as q, k and v in one, has an update for each of its parts.

    Attributes:
        down: (r, I), the A of the paper.
        up: (O, r), its B times `alpha / r`.
    """

    first_output: int
    down: Tensor
    up: Tensor


@dataclass(frozen=True, eq=False)
class Adapter:
    """The updates of an adapter, by the name of the linear layer in the transformer of `config`.

    Attributes:
        fingerprint: Identifies the numbers of the adapter.
    """

    config: TransformerConfig
    updates: Mapping[str, tuple[LowRankUpdate, ...]]
    fingerprint: str

    @property
    def num_bytes(self) -> int:
        """Memory that the updates take."""
        return sum(part.down.nbytes + part.up.nbytes for parts in self.updates.values() for part in parts)

    @property
    def rank(self) -> int:
        """The largest rank of an update."""
        return max(len(part.down) for parts in self.updates.values() for part in parts)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Adapter:
        """The same on `device` in `dtype`."""
        moved = {
            name: tuple(
                LowRankUpdate(part.first_output, part.down.to(device, dtype), part.up.to(device, dtype))
                for part in parts
            )
            for name, parts in self.updates.items()
        }
        return Adapter(self.config, moved, self.fingerprint)


@dataclass(frozen=True)
class ScaledAdapter:
    """An adapter and what its update is multiplied by: 1 is the update as trained."""

    adapter: Adapter
    scale: float

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ScaledAdapter:
        """The same on `device` in `dtype`."""
        return ScaledAdapter(self.adapter.to(device, dtype), self.scale)

    @property
    def fingerprint(self) -> str:
        """Identifies the numbers that it adds."""
        return f"{self.adapter.fingerprint}*{self.scale!r}"
