"""Every way in which published checkpoints store token mixing and bias, against the plain formula."""

import pytest
import torch

from models.registry import BiasKind, TokenMixing
from tests.golden.loading import relative_error
from tests.models.published_reference import (
    CLASS,
    TEXT,
    TOKENS,
    WIDTH,
    Family,
    matrix_attention,
    matrix_sizes,
    published_settings,
    random_matrix_linears,
    replace_attention,
    temporal_attention,
)

FAMILIES = pytest.mark.parametrize("family", [CLASS, TEXT], ids=["class", "text"])


def check(family: Family, mixing: str, bias: str, qk_tokens: int = TOKENS, v_tokens: int = TOKENS) -> None:
    torch.manual_seed(0)
    linears = random_matrix_linears(mixing, bias, qk_tokens, v_tokens, stored_mask=family is TEXT)
    sizes = matrix_sizes(family, qk_tokens, v_tokens)
    bias_settings = {"use_bias": False} if bias == "none" else {"bias_type": bias}
    model = published_settings(family, u_type=mixing, **sizes, **bias_settings)
    state = replace_attention(family, "matrix_attention.", linears)
    if family is CLASS and bias == "none":  # one setting for both parts of the hybrid's attention
        state = {key: value for key, value in state.items() if not key.endswith("vanilla_attention.qkv.bias")}
    attention = temporal_attention(state, model)
    x = torch.randn(2, 3, TOKENS, WIDTH)
    assert model.config.matrix is not None
    expected = matrix_attention(x, linears, model.config.matrix.column_heads, mixing, bias, is_class=family is CLASS)
    assert relative_error(attention.matrix(x), expected) < 1e-5


@FAMILIES
@pytest.mark.parametrize("mixing", TokenMixing)
def test_token_mixing(family: Family, mixing: TokenMixing) -> None:
    check(family, mixing.value, "matrix")


@FAMILIES
@pytest.mark.parametrize("bias", BiasKind)
def test_bias(family: Family, bias: BiasKind) -> None:
    check(family, "param", bias.value)


@FAMILIES
@pytest.mark.parametrize(("qk_tokens", "v_tokens"), [(8, 32), (32, 8), (16, 8), (8, 16)])
def test_fewer_and_more_tokens_than_a_frame_has(family: Family, qk_tokens: int, v_tokens: int) -> None:
    check(family, "softmax", "matrix", qk_tokens, v_tokens)


@pytest.mark.parametrize(("family", "offset"), [(CLASS, 1e-6), (TEXT, 0.0)], ids=["class", "text"])
def test_only_the_class_family_adds_the_epsilon_to_normalised_mixing(family: Family, offset: float) -> None:
    linears = random_matrix_linears("normalized_l2", "matrix", TOKENS, TOKENS, stored_mask=False)
    zeroed = {name: torch.zeros_like(value) if name.endswith(".u") else value for name, value in linears.items()}
    for name in zeroed:
        if name.endswith(".u"):
            zeroed[name][0] = 1  # a column of norm 1: all but its first element shows what was added
    model = published_settings(family, u_type="normalized_l2", bias_type="matrix", **matrix_sizes(family, 16, 16))
    attention = temporal_attention(replace_attention(family, "matrix_attention.", zeroed), model)
    assert attention.matrix.mix_v[:, 1:].eq(torch.tensor(offset)).all()
