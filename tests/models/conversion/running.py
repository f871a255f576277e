"""Runs of a converted checkpoint on the inputs of a golden file."""

from typing import Any

import torch
from torch import Tensor

from models.checkpoint.load import Checkpoint
from models.conditioning import Condition
from models.config import Conditioning

TOLERANCE = 1e-4


@torch.no_grad()
def run_golden(checkpoint: Checkpoint, tensors: dict[str, Tensor]) -> Any:
    """The output for a golden file's input, in its own layout."""
    if checkpoint.config.conditioning is Conditioning.TEXT:
        condition = Condition(text=tensors["in.text"], text_mask=tensors["in.text_mask"])
        return checkpoint.transformer(tensors["in.x"].transpose(1, 2), tensors["in.t"], condition).transpose(1, 2)
    condition = Condition(labels=tensors.get("in.y"))
    return checkpoint.transformer(tensors["in.x"], tensors["in.t"], condition)
