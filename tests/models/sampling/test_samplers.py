from dataclasses import replace

import pytest
import torch

from models.sampling.samplers import SAMPLERS, build_table
from models.sampling.schedule import NoiseSchedule, Spacing, VarianceType

SCHEDULE = NoiseSchedule()


@pytest.mark.parametrize("num_steps", [1, 2, 3, 250, 999, 1000])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_table_is_whole_and_finite(sampler: str, num_steps: int) -> None:
    table = build_table(sampler, num_steps, SCHEDULE)
    assert table.num_steps == num_steps
    assert table.weights.shape == (num_steps, 4, 6)
    assert table.timesteps.shape == (num_steps,)
    assert table.log_variances.shape == (num_steps, 2)
    assert all(tensor.isfinite().all() for tensor in (table.weights, table.timesteps, table.log_variances))
    assert (table.timesteps.diff() < 0).all()
    assert 0 <= table.timesteps.min() <= table.timesteps.max() <= 999


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_ancestral_samplers_draw_noise_and_none_does_at_the_end(sampler: str) -> None:
    ancestral = sampler in ("ddpm", "ddpm_spaced", "euler_ancestral")
    assert build_table(sampler, 4, SCHEDULE).draws_noise == (ancestral, ancestral, ancestral, False)


def test_spaced_timesteps_reach_from_the_last_to_the_first() -> None:
    assert build_table("ddim_spaced", 10, SCHEDULE).timesteps.tolist() == list(range(999, -1, -111))
    assert build_table("ddpm_spaced", 3, SCHEDULE).timesteps.tolist() == [999, 500, 0]
    assert build_table("ddpm_spaced", 1, SCHEDULE).timesteps.tolist() == [0]


def test_with_all_timesteps_kept_the_spaced_samplers_are_the_usual_ones() -> None:
    for spaced, usual in (("ddim_spaced", "ddim"), ("ddpm_spaced", "ddpm")):
        torch.testing.assert_close(
            build_table(spaced, 1000, SCHEDULE).weights, build_table(usual, 1000, SCHEDULE).weights
        )


def test_learned_variance_lies_between_posterior_variance_and_beta() -> None:
    learned = build_table("ddpm_spaced", 1000, SCHEDULE).log_variances[:-1].double()
    alphas_cumprod = SCHEDULE.alphas_cumprod.flip(0)
    betas = 1 - alphas_cumprod[:-1] / alphas_cumprod[1:]
    posterior = betas * (1 - alphas_cumprod[1:]) / (1 - alphas_cumprod[:-1])
    torch.testing.assert_close(learned.exp(), torch.stack([posterior, betas], dim=1))


def test_tables_are_built_once() -> None:
    assert build_table("unipc", 20, NoiseSchedule()) is build_table("unipc", 20, NoiseSchedule())
    assert build_table("unipc", 20, NoiseSchedule()) is not build_table("unipc", 20, NoiseSchedule(beta_end=1e-2))


def test_an_unknown_sampler_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'heun'.*" + ", ".join(SAMPLERS)):
        build_table("heun", 10, SCHEDULE)


@pytest.mark.parametrize("num_steps", [-1, 0, 1001])
def test_steps_out_of_range_are_refused(num_steps: int) -> None:
    with pytest.raises(ValueError, match=f"{num_steps} inference steps: allowed are 1 to 1000"):
        build_table("ddim", num_steps, SCHEDULE)


def test_a_noise_prediction_cannot_start_from_pure_noise() -> None:
    schedule = NoiseSchedule(rescale_betas_zero_snr=True, timestep_spacing=Spacing.TRAILING)
    with pytest.raises(ValueError, match="ddim starts at a timestep of pure noise"):
        build_table("ddim", 10, schedule)
    build_table("ddim", 10, replace(schedule, timestep_spacing=Spacing.LEADING))


@pytest.mark.parametrize(("sampler", "num_steps"), [("ddim", 1000), ("dpmpp_2m", 1000)])
def test_steps_that_a_spacing_cannot_spread_are_refused(sampler: str, num_steps: int) -> None:
    schedule = NoiseSchedule(timestep_spacing=Spacing.LEADING, steps_offset=1)
    with pytest.raises(ValueError, match=rf"leading spacing and steps_offset 1, {sampler} cannot spread"):
        build_table(sampler, num_steps, schedule)
    build_table(sampler, 900, schedule)


def test_a_fixed_variance_takes_the_place_of_the_learned_range() -> None:
    learned, small, large = (
        build_table("ddpm_spaced", 10, NoiseSchedule(variance_type=kind)).log_variances
        for kind in (VarianceType.LEARNED, VarianceType.SMALL, VarianceType.LARGE)
    )
    torch.testing.assert_close(small, learned[:, :1].expand(-1, 2))
    torch.testing.assert_close(large, learned[:, 1:].expand(-1, 2))
    torch.testing.assert_close(build_table("ddpm_spaced", 10, SCHEDULE).log_variances, learned)
