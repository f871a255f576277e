from pathlib import Path

import pytest
import torch

from models.checkpoint.load import load_checkpoint
from models.vae import VideoDecoder
from tests.models.diffusers_parts import as_diffusers
from tests.models.parts import make_temporal_vae, make_vae
from training.stages.vae import random_frames


def latents(frames: int = 5, size: int = 4) -> torch.Tensor:
    return torch.randn(1, frames, 4, size, size, generator=torch.Generator().manual_seed(1))


def published_class_frames(pixels: torch.Tensor) -> torch.Tensor:
    """The rounding of the published class-conditional sampling."""
    return ((pixels * 0.5 + 0.5) * 255).add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def test_decodes_as_diffusers_with_published_scaling_and_rounding() -> None:
    vae = make_vae()
    frames = VideoDecoder(vae, 0.18215, frames_per_chunk=2).decode(latents())
    expected = published_class_frames(as_diffusers(vae).decode(latents()[0] / 0.18215).sample)
    assert frames.shape == (5, 32, 32, 3)
    assert frames.dtype == torch.uint8
    assert frames.float().std() > 1, "a picture of one colour would compare equal too easily"
    # Chunks change the order of sums, and so now and then a level.
    difference = (frames.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@torch.no_grad()
def test_temporal_decoder_sees_the_frames_of_a_chunk_together() -> None:
    decoder = VideoDecoder(make_temporal_vae(), 0.5)
    vae = as_diffusers(make_temporal_vae())
    expected = published_class_frames(vae.decode(latents()[0] / 0.5, num_frames=5).sample)
    assert torch.equal(decoder.decode(latents()), expected)
    decoder.frames_per_chunk = 1
    assert not torch.equal(decoder.decode(latents()), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_latents_that_are_no_numbers(bad: float) -> None:
    broken = latents()
    broken[0, 2, 1, 0, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        VideoDecoder(make_vae(levels=1), 1.0).decode(broken)


def test_refuses_a_decoder_that_overflows() -> None:
    vae = make_vae(levels=1)
    assert vae.decoder.conv_out.bias is not None
    torch.nn.init.constant_(vae.decoder.conv_out.bias, float("inf"))
    with pytest.raises(ValueError, match="wider dtype"):
        VideoDecoder(vae, 1.0).decode(latents())


@pytest.mark.parametrize("shape", [(2, 5, 4, 4, 4), (1, 5, 3, 4, 4), (5, 4, 4, 4)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(1, T, 4, H, W\)"):
        VideoDecoder(make_vae(levels=1), 1.0).decode(torch.zeros(shape))


@torch.no_grad()
def test_encodes_as_diffusers_with_published_scaling() -> None:
    vae = make_vae()
    frames = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    encoded = VideoDecoder(vae, 0.18215, frames_per_chunk=2).encode(frames)
    posterior = as_diffusers(vae).encode(frames.permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist
    expected = posterior.mean * 0.18215
    assert encoded.shape == (1, 5, 4, 4, 4)
    torch.testing.assert_close(encoded[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(2, 31, 32, 3), (2, 32, 32), (0, 32, 32, 3), (2, 3, 32, 32)])
def test_refuses_frames_that_cannot_be_encoded(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got frames of"):
        VideoDecoder(make_vae(), 1.0).encode(torch.zeros(shape, dtype=torch.uint8))


def test_frames_of_the_demo_world_survive_the_demo_vae() -> None:
    decoder = load_checkpoint(Path("checkpoints/demo-text")).vae
    pixels = random_frames(8, 5, torch.device("cpu"))
    frames = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    error = (decoder.decode(decoder.encode(frames)).float() - frames.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 35  # PSNR in decibels


@torch.no_grad()
def test_pixels_of_a_text_models_video_are_rounded_down_as_published() -> None:
    vae = make_vae()
    decoder = VideoDecoder(vae, 0.18215, floor_pixels=True)
    pixels = vae.decode(latents()[0] / 0.18215)
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(decoder.decode(latents()), expected)
    image = vae.decode(latents()[0, :1] / 0.18215)
    assert torch.equal(decoder.decode(latents()[:, :1]), published_class_frames(image)), "an image is rounded"
