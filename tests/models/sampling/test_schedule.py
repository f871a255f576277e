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
    np.testing.assert_allclose(levels.alphas**2, schedule.alphas_cumprod[[999, 500, 0]].numpy())
    np.testing.assert_array_equal(levels.next_alphas[:2], levels.alphas[1:])
    assert (levels.next_alphas[-1], levels.next_sigmas[-1]) == (1, 0)
    assert levels.log_snrs[-1] == np.inf


def test_a_fractional_timestep_lies_between_its_neighbours() -> None:
    levels = noise_levels(NoiseSchedule(), np.array([11.0, 10.5, 10.0]))
    ratios = levels.sigmas / levels.alphas
    assert ratios[1] == pytest.approx((ratios[0] + ratios[2]) / 2)


def test_a_stride_leads_to_timesteps_of_its_own() -> None:
    levels = noise_levels(NoiseSchedule(), np.array([600.0, 300.0]), stride=400, ends_clean=False)
    trained = NoiseSchedule().alphas_cumprod.numpy() ** 0.5
    np.testing.assert_allclose(levels.next_alphas, [trained[200], trained[0]])


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_timestep() -> None:
    plain, shifted = NoiseSchedule(), NoiseSchedule(rescale_betas_zero_snr=True)
    assert shifted.alphas_cumprod[-1] == 0
    torch.testing.assert_close(shifted.alphas_cumprod[0], plain.alphas_cumprod[0])
    levels = noise_levels(shifted, np.array([999.0, 0.0]))
    assert (levels.alphas[0], levels.sigmas[0]) == (0, 1)
    assert noise_levels(shifted, np.array([999.0]), smallest_alpha=2**-12).alphas[0] == pytest.approx(2**-12)


@pytest.mark.parametrize(
    "wrong",
    [{"steps_offset": 1000}, {"num_train_timesteps": 0}, {"beta_start": 0.0}, {"beta_end": 1.0}, {"beta_end": 5e-5}],
)
def test_an_impossible_schedule_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        NoiseSchedule(**wrong)  # type: ignore[arg-type]
