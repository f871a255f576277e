"""Our autoencoder against diffusers', on the same weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor

from models.autoencoder.autoencoder import Autoencoder
from models.autoencoder.config import AutoencoderConfig
from models.checkpoint.vae import load_vae
from tests.models.diffusers_parts import as_diffusers

SMALL = AutoencoderConfig(block_out_channels=(8, 16, 16), layers_per_block=2, norm_num_groups=4)
TEMPORAL = AutoencoderConfig(
    block_out_channels=(32, 64), layers_per_block=2, use_post_quant_conv=False, temporal_decoder=True
)
CONFIGS = {
    "plain": SMALL,
    "one level": AutoencoderConfig(block_out_channels=(32,)),
    "without attention": replace(SMALL, mid_block_add_attention=False),
    "without quant_conv": replace(SMALL, use_quant_conv=False),
    "without post_quant_conv": replace(SMALL, use_post_quant_conv=False),
    "other channels": replace(SMALL, in_channels=1, out_channels=2, latent_channels=5),
    "temporal": TEMPORAL,
    "temporal, one layer": replace(TEMPORAL, layers_per_block=1),
    "temporal, three layers": replace(TEMPORAL, layers_per_block=3),
}


def make(config: AutoencoderConfig, dtype: torch.dtype = torch.float32) -> Autoencoder:
    torch.manual_seed(0)
    vae = Autoencoder(config)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.15)  # biases, norms and the time mixers, too
    return vae.to(dtype).eval()


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_decodes_and_encodes_as_diffusers(name: str, dtype: torch.dtype) -> None:
    config = CONFIGS[name]
    ours = make(config, dtype)
    theirs = as_diffusers(ours)
    latents = randn(5, config.latent_channels, 4, 6, dtype=dtype)
    pixels = ours.decode(latents)
    expected = theirs.decode(latents, **({"num_frames": 5} if config.temporal_decoder else {})).sample
    assert pixels.float().std() > 1e-3, "a picture of one colour would compare equal too easily"
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0)
    frames = randn(3, config.in_channels, 16, 24, dtype=dtype)
    posterior, expected_posterior = ours.encode(frames), theirs.encode(frames).latent_dist
    torch.testing.assert_close(posterior.mean, expected_posterior.mean, rtol=0, atol=0)
    torch.testing.assert_close(posterior.std, expected_posterior.std, rtol=0, atol=0)
    torch.testing.assert_close(posterior.kl(), expected_posterior.kl(), rtol=0, atol=0)
    torch.manual_seed(3)
    sample = posterior.sample()
    torch.manual_seed(3)
    torch.testing.assert_close(sample, expected_posterior.sample(), rtol=0, atol=0)


def test_gradients_are_those_of_diffusers() -> None:
    ours = make(SMALL)
    theirs = as_diffusers(ours)
    frames = randn(2, 3, 16, 16)
    ours.decode(ours.encode(frames).mean).square().mean().backward()  # type: ignore[no-untyped-call]
    theirs.decode(theirs.encode(frames).latent_dist.mean).sample.square().mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if name.startswith(("encoder.conv_out", "quant_conv")):
            continue  # the log variances get no gradient there
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_seed_gives_the_first_weights_of_diffusers(name: str) -> None:
    torch.manual_seed(7)
    ours = Autoencoder(CONFIGS[name])
    torch.manual_seed(7)
    theirs = as_diffusers_class(CONFIGS[name])
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[key]) for key, tensor in ours.state_dict().items())


def as_diffusers_class(config: AutoencoderConfig) -> torch.nn.Module:
    settings = {name: value for name, value in config.to_json().items() if not name.startswith("_")}
    made: torch.nn.Module = (AutoencoderKLTemporalDecoder if config.temporal_decoder else AutoencoderKL)(**settings)
    return made


@pytest.mark.parametrize("name", ["plain", "without quant_conv", "temporal"])
@pytest.mark.parametrize(
    ("options", "file"),
    [
        ({}, "diffusion_pytorch_model.safetensors"),
        ({"max_shard_size": "20KB"}, "diffusion_pytorch_model.safetensors.index.json"),
        ({"safe_serialization": False}, "diffusion_pytorch_model.bin"),
        ({"safe_serialization": False, "max_shard_size": "20KB"}, "diffusion_pytorch_model.bin.index.json"),
    ],
)
def test_reads_every_folder_that_diffusers_writes(
    tmp_path: Path, name: str, options: dict[str, object], file: str
) -> None:
    made = make(replace(CONFIGS[name], scaling_factor=0.5, force_upcast=False))
    as_diffusers(made).save_pretrained(tmp_path, **options)
    assert (tmp_path / file).is_file()
    loaded = load_vae(tmp_path, torch.float32)
    assert loaded.config == made.config
    assert loaded.state_dict().keys() == made.state_dict().keys()
    assert all(torch.equal(tensor, made.state_dict()[key]) for key, tensor in loaded.state_dict().items())
