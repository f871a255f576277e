import numpy as np
import pytest
import torch

from models.sampling.schedule import NoiseSchedule, noise_levels


def test_alphas_cumprod_is_the_product_of_the_kept_signal() -> None:
    alphas_cumprod = NoiseSchedule(num_train_timesteps=3, beta_start=0.1, beta_end=0.3).alphas_cumprod
    torch.testing.assert_close(alphas_cumprod, torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7], dtype=torch.float64))


def test_levels_preserve_variance_and_end_clean() -> None:
    schedule = NoiseSchedule()
    levels = noise_levels(schedule, np.array([999.0, 500.0, 0.0]))
    np.testing.assert_allclose(levels.alphas**2 + levels.sigmas**2, 1)
    np.testing.assert_allclose(levels.alphas[:3] ** 2, schedule.alphas_cumprod[[999, 500, 0]].numpy())
    assert (levels.alphas[-1], levels.sigmas[-1]) == (1, 0)
    assert levels.log_snrs[-1] == np.inf


def test_a_fractional_timestep_lies_between_its_neighbours() -> None:
    levels = noise_levels(NoiseSchedule(), np.array([11.0, 10.5, 10.0]))
    ratios = levels.sigmas / levels.alphas
    assert ratios[1] == pytest.approx((ratios[0] + ratios[2]) / 2)


@pytest.mark.parametrize(
    "wrong", [{"num_train_timesteps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_end": 5e-5}]
)
def test_an_impossible_schedule_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NoiseSchedule(**wrong)  # type: ignore[arg-type]
