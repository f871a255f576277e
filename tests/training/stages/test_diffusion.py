from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.conditioning import Condition
from models.config import Layout, TransformerConfig
from models.transformer import Transformer
from tests.models.transformers import make_local_config
from training.loop import LoopSettings
from training.stages.diffusion import (
    KNOWN_FRAMES,
    Averaged,
    attention,
    draw_known_frames,
    draw_timesteps,
    train_diffusion,
)
from training.stages.initialize import initialize
from training.stages.latents import LatentDataset


def test_timesteps_are_spread_over_all_the_trained_ones_and_denser_where_it_is_noisy() -> None:
    torch.manual_seed(0)
    timesteps = draw_timesteps(4000, 1000, torch.device("cpu"))
    assert timesteps.min() >= 0
    assert timesteps.max() <= 999
    assert abs((timesteps >= 500).float().mean().item() - 0.75) < 0.01


def test_known_frames_are_drawn_by_their_shares() -> None:
    torch.manual_seed(0)
    is_known = draw_known_frames(torch.zeros(20_000, dtype=torch.bool), 16)
    for share, at_start, at_end in KNOWN_FRAMES:
        frames = torch.arange(16)
        wanted = (frames < at_start) | (frames >= 16 - at_end)
        assert abs((is_known == wanted).all(dim=1).float().mean().item() - share) < 0.01


def test_videos_that_go_on_always_have_known_frames() -> None:
    continues = torch.arange(1000) % 2 == 0
    has_known = draw_known_frames(continues, 16).any(dim=1)
    assert has_known[continues].all()
    assert not has_known[~continues].all()


def test_a_model_of_clean_known_frames_is_trained_on_them(tmp_path: Path) -> None:
    config = replace(make_local_config(), clean_known_frames=True, num_frames=16)
    shape = (2, config.num_frames, config.latent_channels, config.latent_size, config.latent_size)
    dataset = LatentDataset(torch.full(shape, 0.5).half(), torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2).bool())
    model = Transformer(config)
    seen: list[torch.Tensor] = []
    initialize(model)

    def forward(latents: torch.Tensor, timesteps: torch.Tensor, condition: Condition) -> torch.Tensor:
        seen.append(latents)
        output: torch.Tensor = model(latents, timesteps, condition)
        return output

    def labels(indices: torch.Tensor, dropped: torch.Tensor) -> Condition:
        return Condition(labels=torch.zeros_like(indices))

    train_diffusion(Averaged(model), forward, dataset, labels, LoopSettings(tmp_path, 1, 1e-3), batch=400)
    is_clean = (seen[0] == 0.5).flatten(2).all(dim=2)  # (400, 16)
    assert abs(is_clean.any(dim=1).float().mean().item() - 0.35) < 0.08
    assert not is_clean.all(dim=1).any()


@pytest.mark.parametrize(
    ("config", "device", "is_plain"),
    [
        (make_local_config(), "cuda", True),
        (make_local_config(), "cpu", False),
        (make_local_config(layout=Layout.JOINT, num_frames=32), "cuda", False),
    ],
)
def test_attention_over_few_tokens_is_plain_on_a_gpu(config: TransformerConfig, device: str, is_plain: bool) -> None:
    with attention(config, torch.device(device)):
        assert torch.backends.cuda.flash_sdp_enabled() is not is_plain
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_both_ends_of_the_model_stay_in_float32_under_autocast() -> None:
    averaged = Averaged(Transformer(make_local_config()))
    for end in (averaged.model.patch_embedding, averaged.model.output, averaged.average.output):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert end(torch.ones(1, end.in_features)).dtype == torch.float32


def test_the_average_follows_the_weights() -> None:
    averaged = Averaged(Transformer(make_local_config()))
    with torch.no_grad():
        averaged.model.output.bias += 1.0
    before = averaged.average.output.bias.clone()
    averaged.follow(0)
    moved = averaged.average.output.bias - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.9))


def test_a_few_steps_of_training_lower_the_loss_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = make_local_config()
    shape = (8, config.num_frames, config.latent_channels, config.latent_size, config.latent_size)
    dataset = LatentDataset(torch.ones(shape).half(), torch.zeros(8, 1, dtype=torch.int64), torch.zeros(8).bool())

    def labels(indices: torch.Tensor, dropped: torch.Tensor) -> Condition:
        return Condition(labels=torch.where(dropped, config.num_classes or 0, torch.zeros_like(indices)))

    def train(steps: int) -> list[float]:
        model = Transformer(config)
        initialize(model)
        settings = LoopSettings(tmp_path, steps, 1e-2, warmup_steps=1, log_every=1)
        train_diffusion(Averaged(model), model, dataset, labels, settings, batch=4)
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
        return [float(line.split('"noise": ')[1].split(",")[0]) for line in lines]

    first = train(4)
    errors = train(30)
    assert errors[:4] == first
    assert len(errors) == 30
    assert sum(errors[-5:]) < 0.8 * sum(errors[:5])
