"""The VAE's decoder on a CUDA device, plain and fused: 16 frames of 256 x 256 and of 512 x 512 in bfloat16.

    python -m benchmarks.decoder

A VAE of Stable Diffusion's sizes with random weights. Both sides run in one process. Errors are relative to float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.forward import DTYPE, RESULTS, eager_ms
from benchmarks.models import NUM_FRAMES, relative_error
from benchmarks.parts.machine import describe_machine
from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.kernels.fused_decoder import fuse_decoder

IMAGE_SIZES = (256, 512)
PIXELS_PER_LATENT = 8


def build_vae() -> Autoencoder:
    torch.manual_seed(0)
    with torch.device("cuda"):
        return Autoencoder(AutoencoderConfig(block_out_channels=(128, 256, 512, 512), layers_per_block=2)).eval()


@torch.no_grad()
def measure() -> dict[str, float]:
    vae = build_vae()
    latents = torch.randn(2, 4, 32, 32, device="cuda")
    expected = vae.decode(latents)
    vae.to(DTYPE)
    result: dict[str, float] = {}
    for name in ("plain", "fused"):
        if name == "fused":
            fuse_decoder(vae)
        result[f"{name}_error"] = relative_error(vae.decode(latents.to(DTYPE)).float(), expected)
        for size in IMAGE_SIZES:
            side = size // PIXELS_PER_LATENT
            frames = torch.randn(NUM_FRAMES, 4, side, side, device="cuda", dtype=DTYPE)
            result[f"{name}_ms_{size}"] = eager_ms(lambda: vae.decode(frames), repeats=5)  # noqa: B023
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS / "decoder.json")
    options = parser.parse_args(arguments)
    result = measure()
    print(result)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": describe_machine("cuda"), **result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
