"""Every fuse mode of both families, against the plain formula."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.registry import PublishedModel
from tests.golden.loading import relative_error
from tests.models.conversion.sources import golden_state
from tests.models.published_reference import (
    CLASS,
    TEXT,
    TOKENS,
    WIDTH,
    Family,
    State,
    local_attention,
    matrix_attention,
    published_settings,
    temporal_attention,
)

FUSE_KEYS = {
    "concat": {"output_linear.weight": (WIDTH, 2 * WIDTH), "output_linear.bias": (WIDTH,)},
    "sum": {},
    "gated": {"alpha": (WIDTH,), "gamma_local": (WIDTH,), "gamma_global": (WIDTH,)},
    "gated_no_scale": {"alpha": (TOKENS, WIDTH)},
    "content_based_gated": {"content_gate.proj.weight": (WIDTH, WIDTH), "content_gate.proj.bias": (WIDTH,)},
    "difference_content_based_gated": {
        "content_gate.proj.weight": (WIDTH, WIDTH),
        "content_gate.proj.bias": (WIDTH,),
    },
    "local": {},
    "global": {},
}
MODES = [(CLASS, fuse) for fuse in ("concat", "sum", "gated", "local")] + [(TEXT, fuse) for fuse in FUSE_KEYS]


def attention_state(family: Family, fuse: str) -> State:
    """The keys of a checkpoint of this fuse mode under the attention of one temporal block."""
    prefix = family.prefixes[0]
    state = {key.removeprefix(prefix): v for key, v in golden_state(family.golden).items() if key.startswith(prefix)}
    unused = {"local": ("matrix_attention.", "norm_"), "global": (family.local, "norm_")}.get(fuse, ())
    kept = {key: v for key, v in state.items() if not key.startswith((*unused, "output_linear."))}
    # LayerNorms with weights of their own, so that the test sees which is which.
    kept |= {key: torch.randn_like(v) for key, v in kept.items() if key.startswith("norm_")}
    return kept | {key: torch.randn(shape) for key, shape in FUSE_KEYS[fuse].items()}


def reference(x: Tensor, state: State, family: Family, fuse: str, model: PublishedModel) -> Tensor:
    local, matrix = x, x
    if fuse != "global":
        local = local_attention(x, *_local_weights(state, family))
    if fuse != "local":
        assert model.config.matrix is not None
        linears = {key.removeprefix("matrix_attention."): value for key, value in state.items()}
        columns = model.config.matrix.column_heads
        matrix = matrix_attention(x, linears, columns, model.mixing.value, model.bias.value, is_class=family is CLASS)
    if fuse in ("local", "global"):
        return local if fuse == "local" else matrix
    local = F.layer_norm(local, (WIDTH,), state["norm_local.weight"], state["norm_local.bias"], eps=1e-5)
    matrix = F.layer_norm(matrix, (WIDTH,), state["norm_global.weight"], state["norm_global.bias"], eps=1e-5)
    return fused(fuse, x, local, matrix, state)


def fused(fuse: str, x: Tensor, local: Tensor, matrix: Tensor, state: State) -> Tensor:
    if fuse == "concat":
        return torch.cat([local, matrix], dim=-1) @ state["output_linear.weight"].t() + state["output_linear.bias"]
    if fuse == "sum":
        return (local + matrix) / 2**0.5
    if fuse.startswith("gated"):
        share = torch.sigmoid(state["alpha"])
        gammas = [state.get(f"gamma_{part}", torch.ones(())) for part in ("local", "global")]
        return gammas[0] * local * share + gammas[1] * matrix * (1 - share)
    asked = x if fuse == "content_based_gated" else local - matrix
    share = torch.sigmoid(asked @ state["content_gate.proj.weight"].t() + state["content_gate.proj.bias"])
    return local * share + matrix * (1 - share)


def _local_weights(state: State, family: Family) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    if family is CLASS:
        names = [["vanilla_attention.qkv"], ["vanilla_attention.proj"]]
    else:
        names = [[f"attention.to_{part}" for part in "qkv"], ["attention.to_out.0"]]
    qkv, out = (
        (torch.cat([state[f"{n}.weight"] for n in group]), torch.cat([state[f"{n}.bias"] for n in group]))
        for group in names
    )
    return qkv, out


@pytest.mark.parametrize(("family", "fuse"), MODES, ids=[f"{'class' if f is CLASS else 'text'}-{m}" for f, m in MODES])
def test_fuse_mode(family: Family, fuse: str) -> None:
    torch.manual_seed(0)
    attention = attention_state(family, fuse)
    rest = {key: v for key, v in golden_state(family.golden).items() if not key.startswith(family.prefixes)}
    state = rest | {prefix + key: value for prefix in family.prefixes for key, value in attention.items()}
    model = published_settings(family, fuse_mode=fuse)
    x = torch.randn(2, 3, TOKENS, WIDTH)
    actual = temporal_attention(state, model)(x)
    assert relative_error(actual, reference(x, attention, family, fuse, model)) < 1e-5
