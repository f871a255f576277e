import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.vae import VideoDecoder, load_vae
from tests.models.parts import make_temporal_vae, make_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"


def latents(frames: int = 5, size: int = 4) -> torch.Tensor:
    return torch.randn(1, frames, 4, size, size, generator=torch.Generator().manual_seed(1))


def published_class_frames(pixels: torch.Tensor) -> torch.Tensor:
    """The rounding of the published class-conditional sampling."""
    return ((pixels * 0.5 + 0.5) * 255).add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


@torch.no_grad()
def test_decodes_as_diffusers_with_published_scaling_and_rounding() -> None:
    vae = make_vae()
    frames = VideoDecoder(vae, 0.18215, frames_per_chunk=2).decode(latents())
    expected = published_class_frames(vae.decode(latents()[0] / 0.18215).sample)
    assert frames.shape == (5, 32, 32, 3)
    assert frames.dtype == torch.uint8
    assert frames.float().std() > 1, "a picture of one colour would compare equal too easily"
    # Chunks change the order of sums, and so now and then a level.
    difference = (frames.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


@torch.no_grad()
def test_temporal_decoder_sees_the_frames_of_a_chunk_together(tmp_path: Path) -> None:
    make_temporal_vae().save_pretrained(tmp_path)
    decoder = VideoDecoder.load(tmp_path, 0.5, "cpu", torch.float32)
    vae = make_temporal_vae()
    expected = published_class_frames(vae.decode(latents()[0] / 0.5, num_frames=5).sample)
    assert torch.equal(decoder.decode(latents()), expected)
    decoder.frames_per_chunk = 1
    assert not torch.equal(decoder.decode(latents()), expected)


def test_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    make_vae().save_pretrained(tmp_path)
    wide = VideoDecoder.load(tmp_path, 0.18215, "cpu", torch.float32).decode(latents())
    narrow = VideoDecoder.load(tmp_path, 0.18215, "cpu", torch.bfloat16).decode(latents())
    assert (wide.int() - narrow.int()).abs().float().mean() < 1.5


def test_float16_follows_the_folders_word_on_overflow(tmp_path: Path) -> None:
    make_vae(levels=1, force_upcast=True).save_pretrained(tmp_path / "upcast")
    make_vae(levels=1, force_upcast=False).save_pretrained(tmp_path / "plain")
    assert VideoDecoder.load(tmp_path / "upcast", 1.0, "cpu", torch.float16).vae.dtype == torch.float32
    assert VideoDecoder.load(tmp_path / "plain", 1.0, "cpu", torch.float16).vae.dtype == torch.float16


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_latents_that_are_no_numbers(bad: float) -> None:
    broken = latents()
    broken[0, 2, 1, 0, 0] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        VideoDecoder(make_vae(levels=1), 1.0).decode(broken)


def test_refuses_a_decoder_that_overflows() -> None:
    vae = make_vae(levels=1)
    torch.nn.init.constant_(vae.decoder.conv_out.bias, float("inf"))
    with pytest.raises(ValueError, match="wider dtype"):
        VideoDecoder(vae, 1.0).decode(latents())


@pytest.mark.parametrize("shape", [(2, 5, 4, 4, 4), (1, 5, 3, 4, 4), (5, 4, 4, 4)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes \(1, T, 4, H, W\)"):
        VideoDecoder(make_vae(levels=1), 1.0).decode(torch.zeros(shape))


def test_refuses_folders_that_are_no_vae(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_vae(tmp_path, torch.float32)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    with pytest.raises(ValueError, match="VQModel"):
        load_vae(tmp_path, torch.float32)


def test_names_missing_and_unexpected_weights(tmp_path: Path) -> None:
    make_vae(levels=1).save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    state["extra.weight"] = state.pop("decoder.conv_in.bias")
    save_file(state, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"missing: decoder\.conv_in\.bias\s+unexpected: extra\.weight"):
        load_vae(tmp_path, torch.float32)


def test_names_mis_shaped_weights(tmp_path: Path) -> None:
    make_vae(levels=1).save_pretrained(tmp_path)
    state = load_file(tmp_path / WEIGHTS)
    state["decoder.conv_in.bias"] = torch.zeros(3)
    save_file(state, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"mis-shaped: decoder\.conv_in\.bias is \(3,\) instead of \(8,\)"):
        load_vae(tmp_path, torch.float32)
