"""The state of a request between two steps, in a form from which another worker can resume it.

Shape legend: T frames, C H W latent.
"""

from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.sampling.table import SamplerTable


@dataclass(frozen=True)
class Snapshot:
    """Tensors are on the CPU. It keeps at most 4 states, and for most samplers 1, so its size is bounded.

    Attributes:
        step: Completed steps of the turn, of `steps`.
        kept: Indices of the kept states of `models.sampling.table`. States that no later step reads are left out.
        states: (len(kept), T, C, H, W) float32.
        noise_state: (5056,) uint8, the state of the request's random number generator.
        adapters: Fingerprint of the request's adapters, empty without any.
        difference: (1, T, C, H, W) float32, the guidance difference that a later step uses again; None if none does.
        turn: Index of the turn (`models.generate`), which has T frames.
        made: (1, frames of the turns before, C, H, W) float32. None in the first turn.
    """

    step: int
    steps: int
    kept: tuple[int, ...]
    states: Tensor
    noise_state: Tensor
    adapters: str = ""
    difference: Tensor | None = None
    turn: int = 0
    made: Tensor | None = None

    @staticmethod
    def of(
        table: SamplerTable,
        step: int,
        state: Tensor,
        noise_state: Tensor,
        adapters: str = "",
        difference: Tensor | None = None,
        turn: int = 0,
        made: Tensor | None = None,
    ) -> "Snapshot":
        """Take a snapshot after `step` steps of `table`, of the state (1, 4, T, C, H, W)."""
        kept = table.states_read_from(step)
        states, difference = state[0, list(kept)].cpu(), None if difference is None else difference.cpu()
        return Snapshot(step, table.num_steps, kept, states, noise_state, adapters, difference, turn, made)

    def restored(self, table: SamplerTable, like: Tensor) -> Tensor:
        """The state, with the shape and device of `like` (1, 4, T, C, H, W).

        Raises:
            ValueError: When the snapshot is of another request.
        """
        fits = self.steps == table.num_steps and 0 <= self.step <= self.steps
        if not fits or self.kept != table.states_read_from(self.step) or self.states.shape[1:] != like.shape[2:]:
            raise ValueError(
                f"got a snapshot at step {self.step} of {self.steps} with states of shape {tuple(self.states.shape)}: "
                f"this request has {table.num_steps} steps of {table.sampler!r} and latents of {tuple(like.shape[2:])}"
            )
        state = torch.zeros_like(like)
        state[0, list(self.kept)] = self.states.to(state.device)
        return state

    def restored_difference(self, like: Tensor) -> Tensor:
        """The guidance difference, with the shape and device of `like` (1, T, C, H, W).

        Raises:
            ValueError: When the snapshot has none of this shape: it is of another request.
        """
        if self.difference is None or self.difference.shape != like.shape:
            raise ValueError(f"got a snapshot without a guidance difference of shape {tuple(like.shape)}")
        return self.difference.to(like.device)

    def to_bytes(self) -> bytes:
        """Encode in the safetensors format. `from_bytes` decodes it."""
        place = torch.tensor([self.step, self.steps])
        kept = torch.tensor(self.kept)
        tensors = {"place": place, "kept": kept, "states": self.states, "noise_state": self.noise_state}
        if self.adapters:
            tensors["adapters"] = torch.tensor(list(self.adapters.encode()), dtype=torch.uint8)
        if self.difference is not None:
            tensors["difference"] = self.difference.contiguous()
        if self.made is not None:
            tensors |= {"turn": torch.tensor(self.turn), "made": self.made.contiguous()}
        return save(tensors)

    @staticmethod
    def from_bytes(content: bytes) -> "Snapshot":
        """Decode a snapshot. Raises ValueError for other bytes."""
        try:
            # Copied, because views of the bytes can have any alignment, and rounding may depend on the alignment.
            tensors = {name: tensor.clone() for name, tensor in load(content).items()}
            step, steps = tensors["place"].tolist()
            kept = tuple(tensors["kept"].tolist())
            adapters = bytes(tensors["adapters"].tolist()).decode() if "adapters" in tensors else ""
            return Snapshot(
                step,
                steps,
                kept,
                tensors["states"],
                tensors["noise_state"],
                adapters,
                tensors.get("difference"),
                int(tensors["turn"]) if "turn" in tensors else 0,
                tensors.get("made"),
            )
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"got {len(content)} bytes that are not a snapshot: {error}") from error
