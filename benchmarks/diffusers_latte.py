"""A pass of LatteT2V at 512 x 512 against diffusers' `LatteTransformer3DModel`, eager and with its blocks compiled.

    python -m benchmarks.diffusers_latte [--rows 2]

Random weights in bfloat16, 16 frames, 120 text tokens, all sides in one process on a CUDA device.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.latte_transformer_3d import LatteTransformer3DModel

from benchmarks.forward import DTYPE, RESULTS, TEXT_DESIGNS, build, eager_ms, graph_ms, make_inputs
from benchmarks.parts.machine import describe_machine
from models.kernels.fused_blocks import FusedBlocks

HEADS = 16


def build_diffusers_latte() -> Any:
    """The model of the folder that LatteT2V was published in."""
    with torch.device("cuda"):
        model: Any = LatteTransformer3DModel(
            num_attention_heads=HEADS,
            attention_head_dim=1152 // HEADS,
            in_channels=4,
            out_channels=8,
            num_layers=28,
            attention_bias=True,
            sample_size=64,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            caption_channels=4096,
            video_length=16,
        )
    return model.to(DTYPE).eval().requires_grad_(False)


@torch.no_grad()
def measure(rows: int) -> dict[str, float]:
    """Milliseconds of a pass by side, and two ratios."""
    ours = build(TEXT_DESIGNS["text-local"]).to(DTYPE)
    ours.fused_blocks = FusedBlocks(ours)
    latents, timesteps, condition = make_inputs(ours.config, rows)
    latents, condition = latents.to(DTYPE), condition.to("cuda", DTYPE)
    ours_eager_ms = eager_ms(lambda: ours(latents, timesteps, condition))
    ours_ms = graph_ms(lambda: ours(latents, timesteps, condition))

    theirs = build_diffusers_latte()
    mask = condition.mask().long()

    def run() -> Any:
        return theirs(latents.transpose(1, 2), timesteps.long(), condition.text, mask, return_dict=False)

    eager = eager_ms(run)
    for block in (*theirs.transformer_blocks, *theirs.temporal_transformer_blocks):
        block.compile()
    for _ in range(3):
        run()
    compiled = eager_ms(run)
    return {
        "rows": rows,
        "ours_ms": ours_ms,
        "ours_without_graph_ms": ours_eager_ms,
        "diffusers_eager_ms": eager,
        "diffusers_compiled_ms": compiled,
        "eager_ratio": round(eager / ours_ms, 3),
        "compiled_ratio": round(compiled / ours_ms, 3),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[2])
    parser.add_argument("--output", type=Path, default=RESULTS / "diffusers-latte.json")
    options = parser.parse_args(arguments)
    rows = [measure(count) for count in options.rows]
    for row in rows:
        print(row)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": describe_machine("cuda"), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
