"""Published state dicts that do not fit fail by name."""

import re

import pytest
import torch

from models.conversion.state_dict import convert_state_dict
from tests.models.conversion.sources import golden_state
from tests.models.published_reference import CLASS, TEXT, published_settings


def test_every_wrong_key_is_named_at_once() -> None:
    state = golden_state(CLASS.golden)
    del state["blocks.0.attn.qkv.weight"], state["blocks.3.adaLN_modulation.1.bias"]
    state["blocks.7.mlp.fc1.weight"] = torch.zeros(1)
    state["y_embedder.embedding_table.weight"] = torch.zeros(9, 32)
    with pytest.raises(ValueError, match="does not fit the model") as raised:
        convert_state_dict(state, published_settings(CLASS))
    assert str(raised.value).splitlines()[1:] == [
        "  missing: blocks.0.attn.qkv.weight",
        "  missing: blocks.3.adaLN_modulation.1.bias",
        "  unexpected: blocks.7.mlp.fc1.weight",
        "  mis-shaped: y_embedder.embedding_table.weight (9, 32); together they must make (6, 32)",
    ]


@pytest.mark.parametrize("shape", [(16, 9), (16, 0), (128,), ()], ids=str)
def test_a_shape_that_cannot_be_joined_is_named(shape: tuple[int, ...]) -> None:
    key = "blocks.1.attn.matrix_attention.linear_k.u"
    state = golden_state(CLASS.golden) | {key: torch.zeros(shape)}
    with pytest.raises(ValueError, match=re.escape(f"{key} {shape}")):
        convert_state_dict(state, published_settings(CLASS))


@pytest.mark.parametrize("shape", [(1, 33), (1, 32), (16, 1)], ids=str)
def test_a_bias_of_another_shape_is_named_and_never_spread(shape: tuple[int, int]) -> None:
    key = "blocks.1.attn.matrix_attention.linear_v.bias"
    state = golden_state(CLASS.golden) | {key: torch.zeros(shape)}
    with pytest.raises(ValueError, match=re.escape(f"{key} {shape}")):
        convert_state_dict(state, published_settings(CLASS))


def test_position_tables_that_some_text_checkpoints_keep_are_not_read() -> None:
    state = golden_state(TEXT.golden)
    kept = state | {"pos_embed.pos_embed": torch.zeros(1), "temp_pos_embed": torch.zeros(1)}
    model = published_settings(TEXT)
    expected = convert_state_dict(state, model)
    actual = convert_state_dict(kept, model)
    assert actual.keys() == expected.keys()
    assert all(actual[name].equal(expected[name]) for name in expected)


def test_the_result_is_contiguous_float32() -> None:
    state = {key: tensor.half() for key, tensor in golden_state(CLASS.golden).items()}
    converted = convert_state_dict(state, published_settings(CLASS))
    assert {tensor.dtype for tensor in converted.values()} == {torch.float32}
    assert all(tensor.is_contiguous() for tensor in converted.values())
