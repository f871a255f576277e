"""One process's part of a pass, the same on the leader and on its ranks.

Shapes: B rows of the pass, T frames of a row, C H W latent.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from models.conditioning import Condition
from models.transformer import Transformer
from worker.engine.passes.graphs import StepGraphs
from worker.engine.ranks.replica import LEADER
from worker.engine.ranks.split import PassShape, Split


class PassInputs(NamedTuple):
    """The inputs of the transformer."""

    latents: Tensor  # (B, T, C, H, W)
    timesteps: Tensor  # (B,)
    labels: Tensor | None  # (B,)
    text: Tensor | None
    text_mask: Tensor | None

    @staticmethod
    def of(latents: Tensor, timesteps: Tensor, condition: Condition) -> "PassInputs":
        return PassInputs(latents, timesteps, condition.labels, condition.text, condition.text_mask)

    @property
    def condition(self) -> Condition:
        return Condition(self.labels, self.text, self.text_mask)

    @property
    def shape(self) -> PassShape:
        rows, frames = self.latents.shape[:2]
        return PassShape(rows, frames, 0 if self.text is None else self.text.shape[1])


def compute_part(
    transformer: Transformer, inputs: PassInputs, split: Split, graphs: StepGraphs | None
) -> Tensor | None:
    """The outputs of this process's rows or frames. None without any.

    Only rows are replayed from `graphs`: a part of the frames contains exchanges with the other processes.
    """
    rows, frames = split.rows(dist.get_rank()), split.frames(dist.get_rank())
    if rows is not None and rows.start == rows.stop:
        return None

    def run(tensors: Sequence[Tensor | None]) -> tuple[Tensor]:
        given = PassInputs._make(tensors)
        return (transformer(given.latents, given.timesteps, given.condition, None, rows, frames),)

    [outputs] = run(inputs) if graphs is None or frames is not None else graphs.run(run, inputs)
    return outputs


def gather_outputs(transformer: Transformer, inputs: PassInputs, split: Split, outputs: Tensor | None) -> Tensor | None:
    """Gather the outputs of all parts. Returns those of the whole pass on the leader, and None on the ranks."""
    axis = 0 if split.axis == "rows" else 1
    shape = list(inputs.latents.shape)
    shape[2], shape[axis] = transformer.config.out_channels, max(split.counts)
    # All parts of a gather have the size of the largest one.
    padded = outputs
    if outputs is None or outputs.shape[axis] < max(split.counts):
        padded = inputs.latents.new_zeros(shape)
        if outputs is not None:
            padded.narrow(axis, 0, outputs.shape[axis]).copy_(outputs)
    assert padded is not None
    padded = padded.contiguous()
    if dist.get_rank() != LEADER:
        dist.gather(padded, dst=LEADER)
        return None
    parts = [torch.empty_like(padded) for _ in split.counts]
    dist.gather(padded, parts, dst=LEADER)
    return torch.cat([part.narrow(axis, 0, count) for part, count in zip(parts, split.counts, strict=True)], dim=axis)
