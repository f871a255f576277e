import torch

from models.sampling.schedule import NoiseSchedule
from training.stages.losses import MAX_WEIGHT, diffusion_losses, terms_of

TERMS = terms_of(NoiseSchedule(), torch.device("cpu"))


def losses_at(timestep: int, error: float) -> dict[str, torch.Tensor]:
    """The losses of a prediction that is `error` off everywhere, its variance channels at the smaller bound."""
    generator = torch.Generator().manual_seed(timestep)
    clean, noise = torch.randn(2, 1, 2, 4, 2, 2, generator=generator)
    output = torch.cat([noise + error, torch.full_like(noise, -1.0)], dim=2)
    return diffusion_losses(output, clean, noise, TERMS, torch.tensor([timestep]))


def test_the_weighted_error_is_that_of_the_velocity() -> None:
    alpha_bar = NoiseSchedule().alphas_cumprod[600].item()
    losses = losses_at(600, error=0.1)
    torch.testing.assert_close(losses["noise"], torch.tensor(0.01))
    torch.testing.assert_close(losses["velocity"], torch.tensor(0.01 / alpha_bar), rtol=1e-4, atol=0)


def test_known_frames_do_not_count() -> None:
    clean, noise = torch.randn(2, 1, 2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    off = torch.tensor([5.0, 0.1])[:, None, None, None]  # by frame
    output = torch.cat([noise + off, torch.full_like(noise, -1.0)], dim=2)
    losses = diffusion_losses(output, clean, noise, TERMS, torch.tensor([600]), torch.tensor([[True, False]]))
    alone = diffusion_losses(output[:, 1:], clean[:, 1:], noise[:, 1:], TERMS, torch.tensor([600]))
    torch.testing.assert_close(losses, alone)


def test_the_weight_is_bounded_where_hardly_any_signal_is_left() -> None:
    torch.testing.assert_close(losses_at(999, error=0.1)["velocity"], torch.tensor(0.01 * MAX_WEIGHT))


def test_the_bound_is_nothing_for_the_true_noise_and_the_posterior_variance() -> None:
    assert abs(losses_at(500, error=0.0)["bound"].item()) < 1e-6
    assert losses_at(500, error=0.1)["bound"].item() > 1e-5


def test_the_bound_teaches_the_variance_only() -> None:
    clean, noise = torch.randn(2, 1, 2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    output = torch.zeros(1, 2, 8, 2, 2, requires_grad=True)
    diffusion_losses(output, clean, noise, TERMS, torch.tensor([500]))["bound"].backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    predicted, variance = output.grad.chunk(2, dim=2)
    assert not predicted.any()
    assert variance.all()
