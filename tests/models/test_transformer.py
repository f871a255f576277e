"""The transformer as a function: what it takes, and that rows of a batch do not see each other."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from models.conditioning import Condition
from models.config import Conditioning, Fuse, Layout, Temporal, TransformerConfig
from models.transformer import count_parameters
from tests.golden.loading import relative_error
from tests.models.transformers import make_condition, make_config, make_latents, make_transformer

LOCAL = {"temporal": Temporal.LOCAL, "matrix": None, "fuse": None}
DESIGNS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "matrix": {"temporal": Temporal.MATRIX, "fuse": None},
    "local": LOCAL,
    "full3d": LOCAL | {"layout": Layout.JOINT},
}
CONFIGS = {
    f"{conditioning.value}-{name}": make_config(conditioning, **changes)
    for conditioning in Conditioning
    for name, changes in DESIGNS.items()
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@EVERY_CONFIG
@torch.inference_mode()
def test_a_batch_equals_its_rows(config: TransformerConfig) -> None:
    """Each row with a timestep, a label or a prompt of its own; shorter prompts are padded in the batch alone."""
    transformer = make_transformer(config)
    latents, timesteps, condition = make_latents(config, 3), torch.tensor([0, 500, 999]), make_condition(config, 3)
    together = transformer(latents, timesteps, condition)
    for row in range(3):
        alone = transformer(latents[row : row + 1], timesteps[row : row + 1], only(condition, row))
        torch.testing.assert_close(together[row : row + 1], alone)


def only(condition: Condition, row: int) -> Condition:
    """One row, its padding cut off."""
    if condition.text is None:
        return Condition(labels=None if condition.labels is None else condition.labels[row : row + 1])
    return Condition(text=condition.text[row : row + 1, condition.mask()[row]])


@EVERY_CONFIG
@torch.inference_mode()
def test_every_input_matters(config: TransformerConfig) -> None:
    transformer = make_transformer(config)
    latents, timesteps = make_latents(config, 1), torch.tensor([500])
    conditions = [only(make_condition(config, 2), row) for row in range(2)]
    output = transformer(latents, timesteps, conditions[0])
    assert relative_error(transformer(latents, timesteps + 100, conditions[0]), output) > 1e-3
    assert relative_error(transformer(latents.flip(1), timesteps, conditions[0]), output) > 1e-3
    if config.conditioning is not Conditioning.NONE:
        assert relative_error(transformer(latents, timesteps, conditions[1]), output) > 1e-3


@EVERY_CONFIG
@torch.inference_mode()
def test_takes_fewer_frames_than_it_was_trained_on(config: TransformerConfig) -> None:
    """The same as a model trained on so few, with the first rows of the frame positions."""
    transformer = make_transformer(config)
    shorter = make_transformer(replace(config, num_frames=3))
    weights = transformer.state_dict()
    shorter.load_state_dict(weights | {"frame_positions": weights["frame_positions"][:3]})
    latents, timesteps, condition = (
        make_latents(config, 2, num_frames=3),
        torch.tensor([1, 700]),
        make_condition(config, 2),
    )
    output = transformer(latents, timesteps, condition)
    assert output.shape == (2, 3, 8, 4, 4)
    torch.testing.assert_close(output, shorter(latents, timesteps, condition))
    assert transformer(latents[:, :1], timesteps, condition).shape == (2, 1, 8, 4, 4)


@EVERY_CONFIG
@torch.inference_mode()
def test_bfloat16_is_close_to_float32(config: TransformerConfig) -> None:
    transformer = make_transformer(config)
    latents, timesteps, condition = make_latents(config, 2), torch.tensor([10, 900]), make_condition(config, 2)
    expected = transformer(latents, timesteps, condition)
    half = transformer.to(torch.bfloat16)
    actual = half(latents.bfloat16(), timesteps, condition.to("cpu", torch.bfloat16))
    assert actual.dtype == torch.bfloat16
    assert relative_error(actual.float(), expected) < 0.05


@pytest.mark.parametrize("fuse", Fuse)
@pytest.mark.parametrize("conditioning", [Conditioning.CLASS, Conditioning.TEXT])
def test_gradients_reach_every_parameter(conditioning: Conditioning, fuse: Fuse) -> None:
    config = make_config(conditioning, fuse=fuse)
    transformer = make_transformer(config)
    labels = torch.arange(4)  # each of the classes and none, so that each row of their table is used
    condition = Condition(labels=labels) if conditioning is Conditioning.CLASS else make_condition(config, 4)
    transformer(make_latents(config, 4), torch.tensor([0, 100, 500, 999]), condition).square().mean().backward()
    still = [name for name, p in transformer.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


@torch.inference_mode()
def test_a_text_row_without_any_real_token_is_finite() -> None:
    config = make_config(Conditioning.TEXT)
    transformer = make_transformer(config)
    condition = Condition(text=torch.randn(1, 3, config.text_width or 0), text_mask=torch.zeros(1, 3, dtype=torch.bool))
    assert transformer(make_latents(config, 1), torch.tensor([5]), condition).isfinite().all()


@torch.inference_mode()
def test_without_learned_variance_only_the_noise_comes_out() -> None:
    config = make_config(learn_sigma=False)
    output = make_transformer(config)(make_latents(config, 1), torch.tensor([5]), make_condition(config, 1))
    assert output.shape == (1, 4, 4, 4, 4)


def test_count_parameters_leaves_the_position_tables_out() -> None:
    transformer = make_transformer(make_config())
    stored = sum(tensor.numel() for tensor in transformer.state_dict().values())
    tables = (transformer.token_positions.numel(), transformer.frame_positions.numel())
    assert count_parameters(transformer) == stored - sum(tables)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 4, 4, 8, 8), r"\(1, 4, 4, 8, 8\): this checkpoint takes \(batch, frames, 4, 4, 4\) with 1 to 4 frames"),
        ((1, 4, 3, 4, 4), "this checkpoint takes"),
        ((1, 5, 4, 4, 4), "with 1 to 4 frames"),
        ((1, 0, 4, 4, 4), "with 1 to 4 frames"),
        ((4, 4, 4, 4), "this checkpoint takes"),
    ],
)
def test_refuses_other_latents(shape: tuple[int, ...], message: str) -> None:
    config = make_config()
    with pytest.raises(ValueError, match=message):
        make_transformer(config)(torch.zeros(shape), torch.tensor([5]), make_condition(config, 1))


def test_refuses_other_timesteps() -> None:
    config = make_config()
    with pytest.raises(ValueError, match=r"timesteps of shape \(1,\): one for each of 2 samples"):
        make_transformer(config)(make_latents(config, 2), torch.tensor([5]), make_condition(config, 2))


def test_refuses_another_condition() -> None:
    config = make_config()
    with pytest.raises(ValueError, match=r"got labels \[4\]: this checkpoint takes classes 0..2, and 3 for none"):
        make_transformer(config)(make_latents(config, 1), torch.tensor([5]), Condition(labels=torch.tensor([4])))
