"""The four trained designs as checkpoint folders with their cards."""

from pathlib import Path

import torch
from torch import Tensor

from jobs.cards import ModelCard, write_card
from models.checkpoint.directory import CheckpointConfig, new_folder
from models.checkpoint.save import save_checkpoint
from models.checkpoint.text_encoder import load_text_encoder
from models.checkpoint.vae import load_video_decoder, read_vae_config
from models.sampling.samplers import SAMPLERS
from models.sampling.schedule import NoiseSchedule
from training.designs.designs import Design
from training.stages.tokenizer import MAX_TOKENS

PIXELS = 64
FPS = 8
SAMPLER, NUM_STEPS, GUIDANCE_SCALE = "dpmpp_2m", 20, 3.0
EXAMPLES = (
    "a striped red circle moving right quickly in front of a plain cyan square moving up, on a black background",
    "a dotted blue square moving left slowly in front of a plain yellow triangle moving right, on a gray background",
    "a plain green triangle moving down quickly in front of a dotted purple circle moving left, on a navy background",
)


def make_card(design: Design) -> ModelCard:
    return ModelCard(
        id=design.model,
        description=f"Two objects that bounce and pass behind one another: {design.title}, of the four designs.",
        created=1796083200,  # 2026-12-01
        license="Apache-2.0",
        conditioning=design.config.conditioning.value,
        num_frames=design.config.num_frames,
        max_frames=2 * design.config.num_frames,
        trained_frames=design.config.num_frames,
        height=PIXELS,
        width=PIXELS,
        tokens_per_frame=design.config.tokens_per_frame,
        fps=FPS,
        num_inference_steps=NUM_STEPS,
        guidance_scale=GUIDANCE_SCALE,
        sampler=SAMPLER,
        samplers=list(SAMPLERS),
        class_names=None,
        max_prompt_characters=300,
        examples=list(EXAMPLES),
    )


def package(design: Design, weights: dict[str, Tensor], vae: Path, text: Path, output: Path) -> None:
    """Write the checkpoint folder `output`, whole or not at all, in half precision."""
    scaling_factor = read_vae_config(vae).scaling_factor
    settings = CheckpointConfig(
        design.config, NoiseSchedule(), scaling_factor, max_tokens=MAX_TOKENS, cut_negative_to_prompt=True
    )
    decoder = load_video_decoder(vae, scaling_factor, "cpu", torch.float32)
    encoder = load_text_encoder(text / "text_encoder", text / "tokenizer", MAX_TOKENS, "cpu", torch.float32)
    with new_folder(output) as folder:
        save_checkpoint(folder, settings, weights, decoder, encoder, torch.float16)
        write_card(folder, make_card(design))
