from pathlib import Path

import pytest
import torch

from models.autoencoder.autoencoder import Autoencoder
from training.stages.latents import LatentDataset, encode_scenes
from training.stages.vae import new_vae
from training.world.scenes import DIRECTIONS, draw_scenes


@pytest.fixture(scope="module")
def vae() -> Autoencoder:
    torch.manual_seed(0)
    return new_vae().eval()


def test_videos_are_encoded_with_their_scenes(vae: Autoencoder) -> None:
    dataset = encode_scenes(vae, 3, seed=0, num_frames=4, batch=2, motions=DIRECTIONS)
    assert dataset.latents.shape == (3, 4, 4, 8, 8)
    assert dataset.latents.dtype == torch.float16
    assert dataset.scenes.shape == (3, 5)
    assert {dataset.scene(index).motion for index in range(3)} <= set(DIRECTIONS)


def test_the_first_batch_is_that_of_the_seed(vae: Autoencoder) -> None:
    dataset = encode_scenes(vae, 2, seed=0, num_frames=2, batch=2)
    assert torch.equal(dataset.scenes, draw_scenes(2, seed=0).attributes)


def test_a_seed_gives_the_same_data_and_another_seed_other_data(vae: Autoencoder) -> None:
    first, again, other = (encode_scenes(vae, 3, seed, num_frames=2, batch=2) for seed in (1, 1, 2))
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents, other.latents)


def test_saved_data_loads(vae: Autoencoder, tmp_path: Path) -> None:
    dataset = encode_scenes(vae, 2, seed=0, num_frames=2, batch=2)
    dataset.save(tmp_path / "latents.safetensors")
    loaded = LatentDataset.load(tmp_path / "latents.safetensors")
    assert torch.equal(loaded.latents, dataset.latents)
    assert torch.equal(loaded.scenes, dataset.scenes)
    assert [file.name for file in tmp_path.iterdir()] == ["latents.safetensors"]
