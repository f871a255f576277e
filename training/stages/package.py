"""The last stage: what was trained, as a checkpoint folder with its card."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from jobs.cards import ModelCard, write_card
from models.checkpoint.directory import CheckpointConfig, new_folder
from models.checkpoint.save import save_checkpoint
from models.checkpoint.text_encoder import load_text_encoder
from models.checkpoint.vae import load_video_decoder, read_vae_config
from models.config import Conditioning
from models.sampling.samplers import SAMPLERS
from models.sampling.schedule import NoiseSchedule
from training.demos import DEMOS, Demo
from training.stages.tokenizer import MAX_TOKENS
from training.world.scenes import CLASS_NAMES

PIXELS = 64
FPS = 8


def make_card(demo: Demo) -> ModelCard:
    """How the demo presents itself: its defaults are what the evaluation's table was made with."""
    return ModelCard(
        id=demo.name,
        description=demo.description,
        created=1795392000,  # 2026-11-23
        license="Apache-2.0",
        conditioning=demo.config.conditioning.value,
        num_frames=demo.config.num_frames,
        max_frames=4 * demo.config.num_frames,
        trained_frames=demo.config.num_frames,
        height=PIXELS,
        width=PIXELS,
        tokens_per_frame=demo.config.tokens_per_frame,
        fps=FPS,
        num_inference_steps=demo.num_inference_steps,
        guidance_scale=demo.guidance_scale,
        sampler=demo.sampler,
        samplers=list(SAMPLERS),
        class_names=list(CLASS_NAMES) if demo.config.conditioning is Conditioning.CLASS else None,
        max_prompt_characters=300,
        examples=list(demo.examples),
    )


def package(demo: Demo, weights: Path, vae: Path, text: Path, output: Path) -> None:
    """Write the checkpoint folder `output`, whole or not at all, in half precision."""
    is_text = demo.config.conditioning is Conditioning.TEXT
    scaling_factor = read_vae_config(vae).scaling_factor
    settings = CheckpointConfig(
        demo.config,
        NoiseSchedule(),
        scaling_factor,
        max_tokens=MAX_TOKENS if is_text else None,
        cut_negative_to_prompt=is_text,
    )
    decoder = load_video_decoder(vae, scaling_factor, "cpu", torch.float32)
    encoder = None
    if is_text:
        encoder = load_text_encoder(text / "text_encoder", text / "tokenizer", MAX_TOKENS, "cpu", torch.float32)
    with new_folder(output) as folder:
        save_checkpoint(folder, settings, load_file(weights), decoder, encoder, torch.float16)
        write_card(folder, make_card(demo))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", choices=DEMOS)
    parser.add_argument(
        "--weights", type=Path, default=None, help="default: build/training/demo-DEMO/model.safetensors"
    )
    parser.add_argument("--vae", type=Path, default=Path("build/training/vae/vae"))
    parser.add_argument("--text", type=Path, default=Path("build/training/text"))
    parser.add_argument("--output", type=Path, default=None, help="default: checkpoints/demo-DEMO")
    options = parser.parse_args(arguments)
    demo = DEMOS[options.demo]
    output = options.output or Path("checkpoints") / demo.name
    weights = options.weights or Path("build/training") / demo.name / "model.safetensors"
    package(demo, weights, options.vae, options.text, output)
    print(f"wrote {output}: {sum(file.stat().st_size for file in output.rglob('*')) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
