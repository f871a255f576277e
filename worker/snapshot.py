"""A request between two steps, in a form in which another worker can go on from it.

T frames, C H W latent.
"""

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.sampling.table import LATENT, NUM_STATES, SamplerTable


@dataclass(frozen=True)
class Snapshot:
    """Tensors are on the CPU. There are at most 4 kept states, for most samplers 1: the size is bounded."""

    step: int
    steps: int
    kept: tuple[int, ...]  # which states of `models.sampling.table`; those that no later step reads are left out
    states: Tensor  # (len(kept), T, C, H, W) float32
    noise_state: Tensor  # (5056,) uint8, of the request's generator

    @staticmethod
    def of(table: SamplerTable, step: int, state: Tensor, noise_state: Tensor) -> "Snapshot":
        """Of a request that has done `step` steps of `table` and has come to `state` (1, 4, T, C, H, W)."""
        kept = _read_from(table, step)
        return Snapshot(step, table.num_steps, kept, state[0, list(kept)].cpu(), noise_state)

    def restored(self, table: SamplerTable, like: Tensor) -> Tensor:
        """The state, shaped as `like` (1, 4, T, C, H, W). Raises ValueError where it is of another request."""
        fits = self.steps == table.num_steps and 0 <= self.step <= self.steps
        if not fits or self.kept != _read_from(table, self.step) or self.states.shape[1:] != like.shape[2:]:
            raise ValueError(
                f"got a snapshot at step {self.step} of {self.steps} with states of shape {tuple(self.states.shape)}: "
                f"this request has {table.num_steps} steps of {table.sampler!r} and latents of {tuple(like.shape[2:])}"
            )
        state = torch.zeros_like(like)
        state[0, list(self.kept)] = self.states
        return state

    def to_bytes(self) -> bytes:
        """In the safetensors format; `from_bytes` reads it back."""
        place = torch.tensor([self.step, self.steps])
        kept = torch.tensor(self.kept)
        return save({"place": place, "kept": kept, "states": self.states, "noise_state": self.noise_state})

    @staticmethod
    def from_bytes(content: bytes) -> "Snapshot":
        """Raises ValueError for bytes that are no snapshot."""
        try:
            # Views of the bytes are of any alignment, on which the rounding of a product may depend: they are copied.
            tensors = {name: tensor.clone() for name, tensor in load(content).items()}
            step, steps = tensors["place"].tolist()
            kept = tuple(tensors["kept"].tolist())
            return Snapshot(step, steps, kept, tensors["states"], tensors["noise_state"])
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"got {len(content)} bytes that are not a snapshot: {error}") from error


def _read_from(table: SamplerTable, step: int) -> tuple[int, ...]:
    """The states that decide what the steps from `step` on make of the latent."""
    read = {LATENT}
    for weights in reversed((table.weights[step:] != 0).tolist()):  # thousands of looks at a tensor would take long
        read = {LATENT} | {k for k in range(NUM_STATES) if any(weights[j][k] for j in read)}
    return tuple(sorted(read))
