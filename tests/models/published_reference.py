"""Published state dicts of any kind, and their temporal attention computed plainly: one einsum, one head at a time.

Shapes: B batch, T frames, N tokens per frame, D width. The sizes are those of the golden files: T 4, N 16, D 32.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.conversion.state_dict import convert_state_dict
from models.registry import PublishedModel
from models.transformer import Transformer
from tests.golden.loading import published_model_of, read_golden
from tests.models.conversion.sources import GOLDEN, golden_state

TOKENS, WIDTH, HEADS = 16, 32, 4


@dataclass(frozen=True)
class Family:
    """Where a family keeps the attention of its two temporal blocks, and a golden file to take the rest from."""

    golden: str
    prefixes: tuple[str, str]
    local: str


CLASS = Family("framedit_h_concat", ("blocks.1.attn.", "blocks.3.attn."), "vanilla_attention.")
TEXT = Family(
    "framedit_h_t2v",
    ("temporal_transformer_blocks.0.attn1.", "temporal_transformer_blocks.1.attn1."),
    "attention.",
)

State = dict[str, Tensor]


def published_settings(family: Family, **changes: Any) -> PublishedModel:
    settings, _ = read_golden(GOLDEN / f"{family.golden}.safetensors")
    return published_model_of(settings | changes)


def matrix_sizes(family: Family, qk_tokens: int, v_tokens: int) -> dict[str, int]:
    """The settings for so many tokens; the golden files have 4 column heads in the class family, 8 in the text one."""
    if family is CLASS:
        return {"qk_col_dim": qk_tokens, "v_col_dim": v_tokens}
    return {"qk_col_attn_head_dim": qk_tokens // 8, "v_col_attn_head_dim": v_tokens // 8}


def replace_attention(family: Family, part: str, attention: State) -> State:
    """The golden state with all keys of temporal attention that start with `part` replaced by those of `attention`."""
    state = golden_state(family.golden)
    kept = {key: value for key, value in state.items() if not key.startswith(tuple(p + part for p in family.prefixes))}
    return kept | {prefix + part + key: value for prefix in family.prefixes for key, value in attention.items()}


def temporal_attention(state: State, model: PublishedModel) -> nn.Module:
    """The attention of the first temporal block, converted."""
    transformer = Transformer(model.config)
    transformer.load_state_dict(convert_state_dict(state, model))
    return transformer.blocks[1].attention.requires_grad_(False)


def random_matrix_linears(mixing: str, bias: str, qk_tokens: int, v_tokens: int, stored_mask: bool) -> State:
    """The four matrix linears of one attention."""
    sizes = {
        "linear_q": (TOKENS, qk_tokens),
        "linear_k": (TOKENS, qk_tokens),
        "linear_v": (TOKENS, v_tokens),
        "proj_v": (v_tokens, TOKENS),
    }
    state = {}
    for name, (tokens, mapped) in sizes.items():
        state[f"{name}.u"] = torch.eye(tokens) if mixing == "identity" else torch.randn(tokens, mapped)
        state[f"{name}.w"] = torch.randn(WIDTH, WIDTH) / WIDTH**0.5
        if mixing == "softmax":
            state[f"{name}.u_temperature"] = torch.rand(1, mapped) + 0.5
        if mixing == "sparse" and stored_mask:
            state[f"{name}.u_mask"] = (torch.rand(tokens, mapped) < 0.5).float()
        shapes = {"matrix": (mapped, WIDTH), "row": (1, WIDTH), "col": (mapped, 1)}
        if bias in shapes:
            state[f"{name}.bias"] = torch.randn(shapes[bias])
        elif bias != "none":
            state |= {f"{name}.bias_col": torch.randn(mapped, 16), f"{name}.bias_row": torch.randn(16, WIDTH)}
    return state


def matrix_linear(x: Tensor, state: State, name: str, mixing: str, bias: str, is_class: bool) -> Tensor:
    u = state[f"{name}.u"]
    if mixing == "softmax":
        u = torch.softmax(u / state[f"{name}.u_temperature"], dim=0)
    elif mixing == "pure-softmax":
        u = torch.softmax(u, dim=0)
    elif mixing == "sparse":
        u = u * state.get(f"{name}.u_mask", torch.ones(()))
    elif mixing.startswith("normalized"):
        norm = u.abs().sum(0) if mixing == "normalized_l1" else u.square().sum(0).sqrt()
        u = u / norm + 1e-6 if is_class else u / (norm + 1e-6)
    y = torch.einsum("nm,btnd,de->btme", u, x, state[f"{name}.w"])
    if bias == "col_row":
        return y + state[f"{name}.bias_col"] @ state[f"{name}.bias_row"]
    return y + state[f"{name}.bias"] if bias in ("matrix", "row", "col") else y


def matrix_attention(x: Tensor, state: State, columns: int, mixing: str, bias: str, is_class: bool) -> Tensor:
    """(B, T, N, D) -> (B, T, N, D): each pair of a column and a row head attends between the frames."""
    q, k, v = (matrix_linear(x, state, f"linear_{part}", mixing, bias, is_class) for part in "qkv")
    out = torch.zeros_like(v)
    d = WIDTH // HEADS
    for column in range(columns):
        for row in range(HEADS):
            blocks = []
            for part in (q, k, v, out):
                m = part.shape[2] // columns
                blocks.append(part[:, :, column * m : (column + 1) * m, row * d : (row + 1) * d])
            flat_q, flat_k, flat_v = (block.flatten(2) for block in blocks[:3])
            scores = flat_q @ flat_k.transpose(1, 2) / flat_q.shape[-1] ** 0.5
            blocks[3].copy_((scores.softmax(-1) @ flat_v).view_as(blocks[3]))
    return matrix_linear(out, state, "proj_v", mixing, bias, is_class)


def local_attention(x: Tensor, qkv: tuple[Tensor, Tensor], out: tuple[Tensor, Tensor]) -> Tensor:
    """(B, T, N, D) -> (B, T, N, D): each token position attends over the frames, one head at a time."""
    q, k, v = (x @ qkv[0].t() + qkv[1]).transpose(1, 2).chunk(3, dim=-1)  # (B, N, T, D)
    heads = []
    for a, b, c in zip(*(part.chunk(HEADS, dim=-1) for part in (q, k, v)), strict=True):
        heads.append((a @ b.transpose(-2, -1) / a.shape[-1] ** 0.5).softmax(-1) @ c)
    return torch.cat(heads, dim=-1).transpose(1, 2) @ out[0].t() + out[1]
