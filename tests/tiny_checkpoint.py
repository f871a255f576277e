"""A class model of the real make, small enough to run in milliseconds, with random weights."""

from pathlib import Path

import torch

from jobs.cards import ModelCard, write_card
from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.directory import CheckpointConfig
from models.checkpoint.save import save_checkpoint
from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal, TransformerConfig
from models.sampling.schedule import NoiseSchedule
from models.transformer import Transformer
from models.vae import VideoDecoder

NUM_FRAMES = 4
PIXELS = 16


def tiny_card(model: str = "tiny", max_inference_steps: int = 1000) -> ModelCard:
    return ModelCard(
        id=model,
        conditioning="class",
        class_names=["left", "right", "up"],
        num_frames=NUM_FRAMES,
        max_frames=NUM_FRAMES,
        height=PIXELS,
        width=PIXELS,
        fps=8,
        num_inference_steps=4,
        max_inference_steps=max_inference_steps,
        guidance_scale=2.0,
        sampler="ddim",
        samplers=["ddim", "ddpm"],
    )


def make_tiny_checkpoint(folder: Path, card: ModelCard | None = None) -> Path:
    """Write the checkpoint into `folder`, which is made; its weights are the same each time."""
    torch.manual_seed(0)
    transformer = Transformer(tiny_config())
    for parameter in transformer.parameters():  # fresh ones start as the identity, which hides mistakes
        torch.nn.init.normal_(parameter, std=0.05)
    vae = Autoencoder(
        AutoencoderConfig(block_out_channels=(8, 8), latent_channels=2, norm_num_groups=4, sample_size=PIXELS)
    )
    folder.mkdir(parents=True)
    settings = CheckpointConfig(transformer.config, NoiseSchedule(), scaling_factor=1.0)
    save_checkpoint(folder, settings, transformer.state_dict(), VideoDecoder(vae, 1.0), None, torch.float32)
    write_card(folder, card or tiny_card())
    return folder


def tiny_config() -> TransformerConfig:
    return TransformerConfig(
        conditioning=Conditioning.CLASS,
        layout=Layout.ALTERNATING,
        temporal=Temporal.HYBRID,
        depth=2,
        width=16,
        heads=2,
        patch_size=2,
        latent_channels=2,
        latent_size=PIXELS // 2,
        num_frames=NUM_FRAMES,
        num_classes=3,
        matrix=MatrixAttentionConfig(column_heads=2, row_heads=2, qk_tokens=8, v_tokens=16),
        fuse=Fuse.CONCAT,
    )
