import torch

from models.sampling.guidance import guide

# Two requests with guidance (rows 0 and 1, 4 and 2) and one without (row 3), in no particular order.
CONDITIONAL, UNCONDITIONAL = torch.tensor([0, 3, 4]), torch.tensor([1, 3, 2])
SCALES = torch.tensor([4.0, 1.0, 7.5])
CHANNELS = 3


def outputs(channels: int) -> torch.Tensor:
    return torch.randn((5, 2, channels, 4, 4), generator=torch.Generator().manual_seed(0))


def test_each_row_is_guided_by_its_own_scale() -> None:
    model = outputs(2 * CHANNELS)
    noise, _ = guide(model, CONDITIONAL, UNCONDITIONAL, SCALES, CHANNELS)
    expected = model[1] + 4.0 * (model[0] - model[1]), model[2] + 7.5 * (model[4] - model[2])
    torch.testing.assert_close(noise[0], expected[0][:, :CHANNELS])
    torch.testing.assert_close(noise[2], expected[1][:, :CHANNELS])


def test_a_row_without_guidance_is_left_exactly_as_it_is() -> None:
    model = outputs(2 * CHANNELS)
    noise, variance = guide(model, CONDITIONAL, UNCONDITIONAL, SCALES, CHANNELS)
    assert variance is not None
    assert torch.equal(torch.cat([noise[1], variance[1]], dim=1), model[3])


def test_variance_is_that_of_the_conditional_row() -> None:
    model = outputs(2 * CHANNELS)
    _, variance = guide(model, CONDITIONAL, UNCONDITIONAL, SCALES, CHANNELS)
    assert variance is not None
    assert torch.equal(variance, model[CONDITIONAL, :, CHANNELS:])


def test_a_model_without_variance_has_none() -> None:
    noise, variance = guide(outputs(CHANNELS), CONDITIONAL, UNCONDITIONAL, SCALES, CHANNELS)
    assert noise.shape == (3, 2, CHANNELS, 4, 4)
    assert variance is None
