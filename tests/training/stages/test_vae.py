from pathlib import Path

import pytest
import torch

from models.autoencoder.autoencoder import Autoencoder
from models.checkpoint.vae import load_vae
from training.stages import vae as stage
from training.stages.vae import edge_weights, new_vae, normalise_latents, random_frames

CPU = torch.device("cpu")


@pytest.fixture
def vae() -> Autoencoder:
    torch.manual_seed(0)
    return new_vae().eval()


@torch.no_grad()
def test_normalised_latents_decode_to_the_same_frames(vae: Autoencoder) -> None:
    frames = random_frames(4, 1, CPU)
    before = vae.encode(frames)
    decoded = vae.decode(before.mean)
    normalise_latents(vae, num_frames=32, batch=32)
    after = vae.encode(frames)
    assert torch.allclose(vae.decode(after.mean), decoded, atol=1e-4)
    # The posterior's spread is scaled as its mean is, channel by channel.
    scales = [(moments[2:] - moments[:2]).flatten(2) for moments in (before.mean, after.mean)]
    assert torch.allclose((after.std / before.std).flatten(2)[:2] * scales[0], scales[1], atol=1e-4)


@torch.no_grad()
def test_normalised_latents_have_mean_zero_and_variance_one_by_channel(vae: Autoencoder) -> None:
    normalise_latents(vae, num_frames=64, batch=32)
    latents = torch.cat([vae.encode(random_frames(32, 5000 + 2 * i, CPU)).sample() for i in range(2)])
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.05)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.05)
    assert vae.config.scaling_factor == pytest.approx(1, abs=0.05)


def test_edges_weigh_more_than_flat_areas() -> None:
    frames = torch.full((1, 3, 16, 16), -1.0)
    frames[:, :, :, 8:] = 1
    weights = edge_weights(frames)[0]
    assert (weights[:, [0, 1, 14, 15]] == 1).all()
    assert (weights[:, 7:9] == 5).all()


def test_training_leaves_a_folder_that_loads(tmp_path: Path) -> None:
    report = stage.run(tmp_path, CPU, steps=2, batch=2, half=True, num_measured=8)
    assert report["psnr_worst"] <= report["psnr_mean"]
    vae = load_vae(tmp_path / "vae", torch.float16)
    assert vae.config.latent_channels == 4
    assert vae.config.scaling_factor == report["scaling_factor"]
    size = sum(file.stat().st_size for file in (tmp_path / "vae").iterdir())
    assert size < 3_000_000
