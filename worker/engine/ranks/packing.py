"""The inputs of a pass as one buffer of bytes, which one broadcast carries."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

# Shape and number format of each tensor. None stands for an input that the model does not have.
Layout = tuple[tuple[tuple[int, ...], torch.dtype] | None, ...]

_ALIGNMENT = 16  # bytes; a view in another number format needs it


def layout_of(tensors: Sequence[Tensor | None]) -> Layout:
    return tuple(None if tensor is None else (tuple(tensor.shape), tensor.dtype) for tensor in tensors)


def empty_buffer(layout: Layout, device: torch.device) -> Tensor:
    """A buffer for tensors of this layout."""
    num_bytes = sum(_padded_bytes(*part) for part in layout if part is not None)
    return torch.empty(num_bytes, dtype=torch.uint8, device=device)


def pack(tensors: Sequence[Tensor | None], device: torch.device) -> Tensor:
    """A buffer that holds copies of the tensors."""
    buffer = empty_buffer(layout_of(tensors), device)
    for packed, tensor in zip(unpack(buffer, layout_of(tensors)), tensors, strict=True):
        if packed is not None and tensor is not None:
            packed.copy_(tensor, non_blocking=True)
    return buffer


def unpack(buffer: Tensor, layout: Layout) -> list[Tensor | None]:
    """The tensors in a buffer, as views of it."""
    tensors: list[Tensor | None] = []
    start = 0
    for part in layout:
        if part is None:
            tensors.append(None)
            continue
        shape, dtype = part
        num_bytes = prod(shape) * dtype.itemsize
        tensors.append(buffer[start : start + num_bytes].view(dtype).view(shape))
        start += _padded_bytes(shape, dtype)
    return tensors


def _padded_bytes(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return -(-prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
