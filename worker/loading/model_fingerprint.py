"""The model fingerprint: identifies the numbers that a model computes."""

import hashlib

import torch
from torch import Tensor, nn

from models.checkpoint.load import Checkpoint

_PER_TENSOR = 16


def fingerprint(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits that differ for other weights, settings, dtypes, kinds of device and fast paths.

    The device of the text encoder counts, and where its weights wait does not: it computes the same.

    Only the first numbers of each tensor are read, which takes milliseconds: training or merging changes every tensor.
    """
    modules: list[nn.Module] = [checkpoint.transformer]
    if checkpoint.text_encoder is not None:
        modules.append(checkpoint.text_encoder.encoder)
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    numbers = torch.cat([_first_numbers(module) for module in modules])
    weight = next(checkpoint.transformer.parameters())
    shapes = [tuple(tensor.shape) for tensor in tensors]
    about = f"{checkpoint.settings} {weight.dtype} {weight.device.type} {shapes}"
    if checkpoint.fast:
        about += " fast, fused" if checkpoint.transformer.fused_blocks else " fast"
    if checkpoint.text_encoder is not None and checkpoint.text_encoder.device.type != weight.device.type:
        about += f", text encoder on {checkpoint.text_encoder.device.type}"
    return hashlib.sha256(about.encode() + numbers.numpy().tobytes()).hexdigest()[:16]


def _first_numbers(module: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten()[:_PER_TENSOR].double() for tensor in module.state_dict().values()]).cpu()
