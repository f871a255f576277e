"""Generated latents as small files: eight bits a number, which changes a decoded pixel by less than a grey level."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

STEP = 1 / 24


def save_latents(latents: Mapping[str, Tensor], path: Path) -> None:
    """Write latents (N, T, C, h, h) by name, numbers beyond +-127 steps cut."""
    rounded = {name: (each / STEP).round().clamp(-127, 127).to(torch.int8).numpy() for name, each in latents.items()}
    np.savez_compressed(path, **rounded)  # type: ignore[arg-type]


def load_latents(path: Path) -> dict[str, Tensor]:
    """The latents of a file of `save_latents`, float32."""
    with np.load(path) as arrays:
        return {name: torch.from_numpy(arrays[name]).float() * STEP for name in arrays.files}
