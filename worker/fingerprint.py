"""Which model this is, as far as the numbers that it computes go."""

import hashlib

import torch

from models.checkpoint.load import Checkpoint

_PER_TENSOR = 16


def fingerprint(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits: other weights, settings, dtypes or kinds of device have others.

    The first numbers of each tensor stand for all of it: reading them takes milliseconds, and what is trained or merged
    on changes them all.
    """
    modules = [checkpoint.transformer]
    if checkpoint.text_encoder is not None:
        modules.append(checkpoint.text_encoder.encoder)
    tensors = [tensor for module in modules for tensor in module.state_dict().values()]
    numbers = torch.cat([tensor.flatten()[:_PER_TENSOR].double() for tensor in tensors]).cpu()
    weight = next(checkpoint.transformer.parameters())
    shapes = [tuple(tensor.shape) for tensor in tensors]
    about = f"{checkpoint.settings} {weight.dtype} {weight.device.type} {shapes}"
    return hashlib.sha256(about.encode() + numbers.numpy().tobytes()).hexdigest()[:16]
