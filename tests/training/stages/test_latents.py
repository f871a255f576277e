from pathlib import Path

import pytest
import torch

from models.autoencoder.autoencoder import Autoencoder
from training.stages.latents import (
    _SEED_STRIDE,
    EXTENSION,
    FREE_SHARE,
    FREE_SPINNING_SHARE,
    LATER_STARTS,
    LatentDataset,
    draw_starts,
    encode_scenes,
)
from training.stages.vae import new_vae
from training.world.renderer import render_at
from training.world.scenes import DIRECTIONS, MOTIONS, draw_scenes


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
    assert torch.equal(loaded.continues, dataset.continues)
    assert [file.name for file in tmp_path.iterdir()] == ["latents.safetensors"]


def test_some_videos_begin_later_in_the_motion() -> None:
    scenes = draw_scenes(4000, seed=1, motions=[name for name in MOTIONS if name != "spinning"])
    starts, continues = draw_starts(scenes, seed=1)
    assert torch.equal(starts, draw_starts(scenes, seed=1)[0])
    assert not torch.equal(starts, draw_starts(scenes, seed=2)[0])
    for share, first, last in LATER_STARTS:
        drawn = (starts > 0) & (starts >= first) & (starts <= last if first == last else starts < last)
        drawn &= (starts == EXTENSION) == (first == last)
        assert drawn.float().mean().item() == pytest.approx(share, abs=0.02)
    assert (starts > 0).float().mean().item() == pytest.approx(0.36, abs=0.02)
    assert not continues[starts < EXTENSION].any()
    assert continues[starts >= EXTENSION].float().mean().item() == pytest.approx(1 - FREE_SHARE, abs=0.03)


def test_half_of_the_spinning_shapes_begin_turned() -> None:
    starts, continues = draw_starts(draw_scenes(4000, seed=1, motions=["spinning"]), seed=1)
    assert (starts > 0).float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (starts == EXTENSION).float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert starts.max() > 3.5
    assert continues[starts >= EXTENSION].float().mean().item() == pytest.approx(1 - FREE_SPINNING_SHARE, abs=0.03)


def test_encoded_videos_know_whether_they_go_on(vae: Autoencoder) -> None:
    _, continues = draw_starts(draw_scenes(100, 0, motions=DIRECTIONS), 0)
    encoded = encode_scenes(vae, 100, seed=0, num_frames=1, batch=100, motions=DIRECTIONS)
    assert torch.equal(encoded.continues, continues)
    assert continues.any()


def test_videos_begin_at_their_start(vae: Autoencoder) -> None:
    seed = next(
        seed for seed in range(100) if draw_starts(draw_scenes(1, seed * _SEED_STRIDE), seed * _SEED_STRIDE)[0] > 0
    )
    scenes = draw_scenes(1, seed * _SEED_STRIDE)
    times = draw_starts(scenes, seed * _SEED_STRIDE)[0][:, None] + torch.tensor([0.0, 1.0])
    latents = encode_scenes(vae, 1, seed, num_frames=2).latents
    with torch.no_grad():
        expected = vae.encode(render_at(scenes, times).flatten(0, 1)).mean * vae.config.scaling_factor
    assert torch.equal(latents[0], expected.half())
