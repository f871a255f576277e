from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.videos.record import VideoRequest
from models.generate import denoise
from tests.mp4 import decode_mp4
from worker.errors import NotFiniteError
from worker.generate import make_video, to_generation
from worker.loading.model_cache import LoadedModel, ModelCache

Request = Callable[..., VideoRequest]


@pytest.fixture
def tiny(models: ModelCache) -> LoadedModel:
    return models["tiny"]


def test_the_file_contains_the_models_frames(tiny: LoadedModel, request_of: Request, tmp_path: Path) -> None:
    steps = []
    timings = make_video(request_of(), tiny, tmp_path / "out.mp4", lambda *done: steps.append(done))
    video = decode_mp4(tmp_path / "out.mp4")
    checkpoint = tiny.checkpoint
    latents = denoise(checkpoint.transformer, checkpoint.schedule, to_generation(request_of(), tiny))
    expected = checkpoint.vae.decode(latents).numpy()
    assert video.fps == 8
    assert video.frames.shape == expected.shape == (4, 16, 16, 3)
    # Random weights draw noise in colour, of which the coding keeps the brightness.
    brightness = [frames @ np.array([0.2126, 0.7152, 0.0722]) for frames in (video.frames, expected)]
    assert np.corrcoef(brightness[0].ravel(), brightness[1].ravel())[0, 1] > 0.95
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(seconds is not None and seconds > 0 for _, seconds in timings)


def test_the_same_request_gives_the_same_file_and_another_seed_another(
    tiny: LoadedModel, request_of: Request, tmp_path: Path
) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        make_video(request_of(seed=seed), tiny, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() != (tmp_path / "c").read_bytes()


@pytest.mark.parametrize(
    "changes", [{"class_label": 2}, {"guidance_scale": 5.0}, {"sampler": "ddpm"}, {"num_frames": 2}]
)
def test_every_setting_reaches_the_model(
    tiny: LoadedModel, request_of: Request, tmp_path: Path, changes: dict[str, object]
) -> None:
    make_video(request_of(), tiny, tmp_path / "plain")
    make_video(request_of(**changes), tiny, tmp_path / "changed")
    assert (tmp_path / "plain").read_bytes() != (tmp_path / "changed").read_bytes()


def test_without_guidance_the_negative_side_is_not_run(tiny: LoadedModel, request_of: Request) -> None:
    assert to_generation(request_of(guidance_scale=1.0), tiny).negative is None
    assert to_generation(request_of(guidance_scale=1.5), tiny).negative is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"class_label": 3}, r"0\.\.2"), ({"sampler": "magic"}, "magic")],
)
def test_a_request_that_the_checkpoint_does_not_support_raises(
    tiny: LoadedModel, request_of: Request, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_video(request_of(**changes), tiny, tmp_path / "out.mp4")


def test_numbers_that_run_away_are_named(tiny: LoadedModel, request_of: Request, tmp_path: Path) -> None:
    weight = next(tiny.checkpoint.transformer.parameters())
    saved = weight.detach().clone()
    with torch.no_grad():
        weight.fill_(float("nan"))
    try:
        with pytest.raises(NotFiniteError, match=r"diverged to NaN or infinity with 4 steps of 'ddim'"):
            make_video(request_of(), tiny, tmp_path / "out.mp4")
    finally:
        with torch.no_grad():
            weight.copy_(saved)
    assert not (tmp_path / "out.mp4").exists()


def test_an_unconditional_model_ignores_guidance(tiny: LoadedModel, request_of: Request) -> None:
    unconditional = replace(tiny, card=tiny.card.model_copy(update={"conditioning": "none"}))
    assert to_generation(request_of(guidance_scale=4.0), unconditional).guidance_scale == 1
