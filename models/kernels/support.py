"""Whether the fused operations run on a device, and how a loaded model gets them."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch.nn import functional as F

from models.modulation import EPS, modulate
from models.transformer import Transformer
from models.vae import VideoDecoder

_MIN_CAPABILITY = (8, 0)  # bfloat16 on tensor cores
_TOLERANCE = 0.02
_FRAMES_PER_CHUNK = 16


@cache
def find_obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why fused operations cannot run on `device` in `dtype`; None if they can.

    It compiles and checks one kernel: a machine may have Triton and lack the C compiler or the folder that it needs.
    """
    if device.type != "cuda":
        return "they need a CUDA device"
    if dtype not in (torch.bfloat16, torch.float16):
        return f"they compute in bfloat16 or float16, not in {str(dtype).removeprefix('torch.')}"
    if torch.version.hip is not None or torch.cuda.get_device_capability(device) < _MIN_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is not an NVIDIA GPU of compute capability 8.0 or above"
    if find_spec("triton") is None:
        return "the package triton is not installed"
    try:
        return _probe(device, dtype)
    except Exception as error:  # compilers and drivers raise many types
        return f"Triton cannot compile a kernel: {type(error).__name__}: {error}".splitlines()[0]


def fuse(transformer: Transformer, decoder: VideoDecoder) -> None:
    """Let both compute with fused operations where there are some. The caller has checked `find_obstacle`."""
    from models.kernels.fused_decoder import fuse_decoder

    fuse_transformer(transformer)
    if not decoder.vae.config.temporal_decoder:  # it decodes each frame alone, so any number of them at once
        decoder.frames_per_chunk = _FRAMES_PER_CHUNK
        fuse_decoder(decoder.vae)


def fuse_transformer(transformer: Transformer) -> None:
    """Let the transformer alone compute with fused operations."""
    from models.kernels.fused_blocks import FusedBlocks

    transformer.fused_blocks = FusedBlocks(transformer)


@torch.no_grad()
def _probe(device: torch.device, dtype: torch.dtype) -> str | None:
    from models.kernels.fused_blocks import linear_gelu
    from models.kernels.layer_norms import modulated_norm

    generator = torch.Generator("cpu").manual_seed(0)
    x, weight = (torch.randn(32, 32, generator=generator).to(device, dtype) for _ in range(2))
    tokens, rows = x.view(2, 4, 4, 32), weight[:2].view(2, 1, 1, 32)
    pairs = (
        (modulated_norm(tokens, rows, rows, EPS), modulate(tokens, rows, rows)),
        (linear_gelu(x, weight, weight[0]), F.gelu(F.linear(x, weight, weight[0]), approximate="tanh")),
    )
    for actual, expected in pairs:
        if not (actual - expected).float().norm() < _TOLERANCE * expected.float().norm():
            return "a fused operation gives wrong numbers on this device"
    return None
