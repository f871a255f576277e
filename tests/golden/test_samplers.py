"""The spaced samplers agree with whole trajectories of the published implementation to 1e-4 in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch

from models.conditioning import Condition
from models.generate import Generation, run_sampler
from models.sampling.samplers import build_table
from models.sampling.schedule import NoiseSchedule, PredictionType, VarianceType
from models.sampling.table import SamplerTable
from models.transformer import Transformer
from tests.golden.files import golden_files
from tests.golden.loading import load_golden_model, read_golden, relative_error

TOLERANCE = 1e-4
SAMPLERS = {"ddim": "ddim_spaced", "ddpm": "ddpm_spaced"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    files = golden_files(metafunc.config, samplers=True)
    metafunc.parametrize("golden", files, ids=[file.stem for file in files])


def test_sampler_agrees_with_the_published_one(golden: Path) -> None:
    settings, tensors = read_golden(golden)
    transformer = load_golden_model(golden.parent / settings["model"])
    table = build_table(SAMPLERS[settings["method"]], settings["steps"], _schedule(settings))
    assert table.timesteps.flip(0).tolist() == tensors["timesteps"].tolist()
    start = tensors["z"]
    noises = tensors["noises"].reshape(-1, *start.shape)
    rows = [
        _sample(transformer, table, settings, torch.cat([start[None], noises])[:, row : row + 1], label)
        for row, label in enumerate(_labels(transformer, tensors))
    ]
    assert relative_error(torch.cat(rows), tensors["out"]) < TOLERANCE


def _schedule(settings: dict[str, Any]) -> NoiseSchedule:
    """Published linear betas keep their area when the number of diffusion steps is not 1000."""
    assert settings["noise_schedule"] == "linear"
    scale = 1000 / settings["diffusion_steps"]
    predicts_clean = settings.get("predict_xstart", False)
    return NoiseSchedule(
        settings["diffusion_steps"],
        beta_start=scale * 1e-4,
        beta_end=scale * 2e-2,
        prediction_type=PredictionType(settings.get("prediction", "sample" if predicts_clean else "epsilon")),
        variance_type=VarianceType(settings["variance"]) if "variance" in settings else None,
    )


def _labels(transformer: Transformer, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
    """For each row its label (1,), or None where the model has no classes."""
    if transformer.config.num_classes is None:
        return [None] * len(tensors["z"])
    return list(tensors["label"].split(1))


def _sample(
    transformer: Transformer,
    table: SamplerTable,
    settings: dict[str, Any],
    noises: torch.Tensor,
    label: torch.Tensor | None,
) -> torch.Tensor:
    null = None if label is None else torch.tensor([transformer.config.num_classes])
    generation = Generation(
        seed=0,
        num_inference_steps=table.num_steps,
        guidance_scale=settings["cfg_scale"],
        sampler=table.sampler,
        num_frames=noises.shape[2],
        condition=Condition(labels=label),
        negative=Condition(labels=null),
    )
    draws = iter(noises)
    return run_sampler(transformer, table, generation, next(draws), draws.__next__)
