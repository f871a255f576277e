"""Published state dicts -> ours: key maps as data.

Ours differ from the published ones in three ways, all applied here: maps that share an input are stored as one (adaLN
of all blocks, q k v); token mixing U is stored transposed, after its softmax or normalisation; the bias of a matrix
linear is stored as the full matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.checkpoint.keys import check_finite, list_problems
from models.config import Conditioning, Fuse, Layout, Temporal, TransformerConfig
from models.registry import BiasKind, PublishedModel, TokenMixing
from models.transformer import Transformer, position_tables
from models.without_numbers import without_numbers

Combine = Callable[[list[Tensor]], Tensor]
EPS = 1e-6
# Parts of FrameDiT-H's text attention that `disable_matrix_attention` leaves unused.
_BESIDE_LOCAL = ("matrix_attention.", "norm_", "output_linear.", "content_gate.", "alpha", "gamma_")


@dataclass(frozen=True)
class Row:
    """One tensor of ours, and the published tensors that `combine` makes it of."""

    ours: str
    sources: list[str]
    combine: Combine = field(default=torch.cat)


def convert_state_dict(state: dict[str, Tensor], model: PublishedModel) -> dict[str, Tensor]:
    """Convert the published `state` of `model` to our names and layout, in float32.

    Raises ValueError, which names missing, unexpected and mis-shaped keys, and weights with NaN or infinity.
    """
    with without_numbers():
        expected = {name: tensor.shape for name, tensor in Transformer(model.config).state_dict().items()}
    rows = list(key_rows(model))
    sources = {source for row in rows for source in row.sources}
    problems = [f"missing: {name}" for name in sorted(sources - set(state))]
    problems += [f"unexpected: {name}" for name in sorted(set(state) - sources) if not _is_unused(model, name)]
    converted = {}
    for row in rows:
        parts = [state[name].float() for name in row.sources if name in state]
        if len(parts) == len(row.sources):
            tensor = _combine(row, parts, expected[row.ours])
            if tensor is None:
                shapes = ", ".join(f"{name} {tuple(state[name].shape)}" for name in row.sources)
                problems.append(f"mis-shaped: {shapes}; together they must make {tuple(expected[row.ours])}")
            else:
                converted[row.ours] = tensor
    if problems:
        raise ValueError(f"the state dict does not fit the model:{list_problems(problems)}")
    check_finite("the transformer", converted)
    if model.config.conditioning is Conditioning.TEXT:  # sin-cos tables, which the text family does not store
        converted |= position_tables(model.config)
    assert converted.keys() == expected.keys(), "the key map must cover the model"
    return converted


def _combine(row: Row, parts: list[Tensor], shape: torch.Size) -> Tensor | None:
    try:
        tensor = row.combine(parts)
    except (RuntimeError, IndexError):  # shapes that cannot even be joined
        return None
    return tensor.contiguous() if tensor.shape == shape else None


def key_rows(model: PublishedModel) -> Iterator[Row]:
    """The key map of a model: a row for each tensor of ours."""
    yield from _text_rows(model) if model.config.conditioning is Conditioning.TEXT else _class_rows(model)


def _linear(ours: str, *theirs: str) -> Iterator[Row]:
    """A linear layer, or several of one input stacked into one."""
    for kind in ("weight", "bias"):
        yield Row(f"{ours}.{kind}", [f"{name}.{kind}" for name in theirs])


def _patch_rows(theirs: str) -> Iterator[Row]:
    yield Row("patch_embedding.weight", [f"{theirs}.weight"], lambda parts: parts[0].flatten(1))
    yield Row("patch_embedding.bias", [f"{theirs}.bias"])


def _class_rows(model: PublishedModel) -> Iterator[Row]:
    config = model.config
    yield from _patch_rows("x_embedder.proj")
    yield Row("token_positions", ["pos_embed"], _first)
    yield Row("frame_positions", ["temp_embed"], _first)
    yield from _linear("timestep_embedding.expand", "t_embedder.mlp.0")
    yield from _linear("timestep_embedding.contract", "t_embedder.mlp.2")
    if config.conditioning is Conditioning.CLASS:
        yield Row("label_embedding.weight", ["y_embedder.embedding_table.weight"])
    modulated = [f"blocks.{i}" for i in range(config.depth)] + ["final_layer"]
    yield from _linear("modulation.linear", *(f"{name}.adaLN_modulation.1" for name in modulated))
    for i in range(config.depth):
        yield from _class_attention_rows(model, i)
        yield from _linear(f"blocks.{i}.mlp.expand", f"blocks.{i}.mlp.fc1")
        yield from _linear(f"blocks.{i}.mlp.contract", f"blocks.{i}.mlp.fc2")
    yield from _linear("output", "final_layer.linear")


def _class_attention_rows(model: PublishedModel, index: int) -> Iterator[Row]:
    ours, theirs = f"blocks.{index}.attention", f"blocks.{index}.attn"
    temporal = model.config.temporal
    if not model.config.is_temporal(index):
        yield from _qkv_rows(ours, theirs, bias=True)
    elif not model.hybrid_names:
        yield from (_matrix_rows(model, ours, theirs) if temporal is Temporal.MATRIX else _qkv_rows(ours, theirs, True))
    elif temporal is Temporal.LOCAL:
        yield from _qkv_rows(ours, f"{theirs}.vanilla_attention", model.attention_bias)
    else:
        yield from _qkv_rows(f"{ours}.local", f"{theirs}.vanilla_attention", model.attention_bias)
        yield from _matrix_rows(model, f"{ours}.matrix", f"{theirs}.matrix_attention")
        yield from _fuse_rows(model, ours, theirs)


def _qkv_rows(ours: str, theirs: str, bias: bool) -> Iterator[Row]:
    yield Row(f"{ours}.qkv.weight", [f"{theirs}.qkv.weight"])
    if bias:
        yield Row(f"{ours}.qkv.bias", [f"{theirs}.qkv.bias"])
    else:
        yield Row(f"{ours}.qkv.bias", [f"{theirs}.qkv.weight"], _no_bias)
    yield from _linear(f"{ours}.out", f"{theirs}.proj")


def _text_rows(model: PublishedModel) -> Iterator[Row]:
    config = model.config
    yield from _patch_rows("pos_embed.proj")
    yield from _linear("timestep_embedding.expand", "adaln_single.emb.timestep_embedder.linear_1")
    yield from _linear("timestep_embedding.contract", "adaln_single.emb.timestep_embedder.linear_2")
    yield from _linear("text_projection.expand", "caption_projection.linear_1")
    yield from _linear("text_projection.contract", "caption_projection.linear_2")
    yield from _linear("modulation.linear", "adaln_single.linear")
    theirs = [_text_block(config, i) for i in range(config.depth)]
    yield Row("modulation.tables", [f"{name}.scale_shift_table" for name in theirs], torch.stack)
    yield Row("modulation.output_table", ["scale_shift_table"])
    for i, name in enumerate(theirs):
        yield from _text_attention_rows(model, i)
        yield from _linear(f"blocks.{i}.mlp.expand", f"{name}.ff.net.0.proj")
        yield from _linear(f"blocks.{i}.mlp.contract", f"{name}.ff.net.2")
    yield from _linear("output", "proj_out")


def _text_block(config: TransformerConfig, index: int) -> str:
    """Published name of a block: spatial and temporal blocks are in two lists."""
    return f"{'temporal_' if config.is_temporal(index) else ''}transformer_blocks.{_list_index(config, index)}"


def _list_index(config: TransformerConfig, index: int) -> int:
    return index if config.layout is Layout.SPATIAL else index // 2


def _text_attention_rows(model: PublishedModel, index: int) -> Iterator[Row]:
    block = _text_block(model.config, index)
    ours, theirs, bias = f"blocks.{index}.attention", f"{block}.attn1", model.attention_bias
    temporal = model.config.temporal
    if not model.config.is_temporal(index):
        yield from _to_qkv_rows(ours, theirs, bias)
        cross, theirs = f"blocks.{index}.cross", f"{block}.attn2"
        yield from _projection_rows(f"{cross}.q", [f"{theirs}.to_q"], bias)
        yield from _projection_rows(f"{cross}.kv", [f"{theirs}.to_k", f"{theirs}.to_v"], bias)
        yield from _linear(f"{cross}.out", f"{theirs}.to_out.0")
    elif not model.hybrid_names:
        yield from _to_qkv_rows(ours, theirs, bias)
    elif temporal is Temporal.LOCAL:
        yield from _to_qkv_rows(ours, f"{theirs}.attention", bias)
    elif temporal is Temporal.MATRIX:
        yield from _matrix_rows(model, ours, f"{theirs}.matrix_attention")
    else:
        yield from _to_qkv_rows(f"{ours}.local", f"{theirs}.attention", bias)
        yield from _matrix_rows(model, f"{ours}.matrix", f"{theirs}.matrix_attention")
        yield from _fuse_rows(model, ours, theirs)


def _to_qkv_rows(ours: str, theirs: str, bias: bool) -> Iterator[Row]:
    yield from _projection_rows(f"{ours}.qkv", [f"{theirs}.to_{part}" for part in "qkv"], bias)
    yield from _linear(f"{ours}.out", f"{theirs}.to_out.0")


def _projection_rows(ours: str, theirs: list[str], bias: bool) -> Iterator[Row]:
    if bias:
        yield from _linear(ours, *theirs)
    else:
        weights = [f"{name}.weight" for name in theirs]
        yield Row(f"{ours}.weight", weights)
        yield Row(f"{ours}.bias", weights, _no_bias)


def _fuse_rows(model: PublishedModel, ours: str, theirs: str) -> Iterator[Row]:
    yield from _linear(f"{ours}.norm_local", f"{theirs}.norm_local")
    yield from _linear(f"{ours}.norm_matrix", f"{theirs}.norm_global")
    match model.config.fuse:
        case Fuse.CONCAT:
            yield from _linear(f"{ours}.fuse.linear", f"{theirs}.output_linear")
        case Fuse.GATED:
            for mine, published in (("alpha", "alpha"), ("gamma_local",) * 2, ("gamma_matrix", "gamma_global")):
                yield Row(f"{ours}.fuse.{mine}", [f"{theirs}.{published}"])
        case Fuse.GATED_NO_SCALE:
            yield Row(f"{ours}.fuse.alpha", [f"{theirs}.alpha"])
        case Fuse.CONTENT_GATED | Fuse.DIFFERENCE_GATED:
            yield from _linear(f"{ours}.fuse.gate", f"{theirs}.content_gate.proj")


def _matrix_rows(model: PublishedModel, ours: str, theirs: str) -> Iterator[Row]:
    parts = (("qk", ["linear_q", "linear_k"], torch.stack), ("v", ["linear_v"], _only), ("out", ["proj_v"], _only))
    for part, names, join in parts:
        linears = [f"{theirs}.{name}" for name in names]
        yield _mixing_row(model, f"{ours}.mix_{part}", linears, join)
        yield Row(f"{ours}.weight_{part}", [f"{name}.w" for name in linears], _each(_transpose, 1, join))
        yield _bias_row(model, f"{ours}.bias_{part}", linears, join)


def _mixing_row(model: PublishedModel, ours: str, linears: list[str], join: Combine) -> Row:
    """Effective Uᵀ of each linear."""
    kind = model.mixing
    is_class = model.config.conditioning is not Conditioning.TEXT
    # FrameDiT-H of the class family has sparse mixing without a mask: its U is used as it is.
    has_mask = not (is_class and model.hybrid_names)
    extra = {TokenMixing.SOFTMAX: ["u_temperature"], TokenMixing.SPARSE: ["u_mask"] if has_mask else []}.get(kind, [])

    def effective(parts: list[Tensor]) -> Tensor:
        u, rest = parts[0], parts[1:]
        match kind:
            case TokenMixing.SOFTMAX:
                u = (u / rest[0]).softmax(dim=0)
            case TokenMixing.PURE_SOFTMAX:
                u = u.softmax(dim=0)
            case TokenMixing.NORMALIZED_L1 | TokenMixing.NORMALIZED_L2:
                norm = torch.linalg.vector_norm(u, ord=int(kind.value[-1]), dim=0, keepdim=True)
                # The class family adds the epsilon to the quotient; its trained weights depend on that.
                u = u / norm + EPS if is_class else u / (norm + EPS)
            case TokenMixing.SPARSE if rest:
                u = u * rest[0]
        return u.t()

    names = ["u", *extra]
    return Row(ours, [f"{linear}.{name}" for linear in linears for name in names], _each(effective, len(names), join))


def _bias_row(model: PublishedModel, ours: str, linears: list[str], join: Combine) -> Row:
    """The full bias matrix (tokens, D) of each linear, whatever it is stored as."""
    kind = model.bias
    low_rank = kind in (BiasKind.COL_ROW, BiasKind.SEPARATE_COL_ROW)
    names = ["bias_col", "bias_row"] if low_rank else [] if kind is BiasKind.NONE else ["bias"]

    def full(parts: list[Tensor]) -> Tensor:
        u, w, *bias = parts
        tokens, width = u.shape[1], w.shape[1]
        match kind:
            case BiasKind.COL_ROW:
                return bias[0] @ bias[1]
            case BiasKind.MATRIX:
                return bias[0].view(tokens, width)
            case BiasKind.ROW:
                return bias[0].view(1, width).expand(tokens, width)
            case BiasKind.COL:
                return bias[0].view(tokens, 1).expand(tokens, width)
        return torch.zeros(tokens, width)  # none; or `separate_col_row`, which is stored and, as published, never added

    names = ["u", "w", *names]
    return Row(ours, [f"{linear}.{name}" for linear in linears for name in names], _each(full, len(names), join))


def _is_unused(model: PublishedModel, key: str) -> bool:
    """Whether a key changes nothing: position buffers, which some versions store, and blocks that are switched off."""
    if model.config.conditioning is not Conditioning.TEXT:
        return False
    if key in ("pos_embed.pos_embed", "temp_pos_embed"):
        return True
    if model.config.layout is Layout.SPATIAL:
        return key.startswith("temporal_transformer_blocks.")
    uses_local_alone = model.hybrid_names and model.config.temporal is Temporal.LOCAL
    return uses_local_alone and any(f".attn1.{part}" in key for part in _BESIDE_LOCAL)


def _each(function: Combine, size: int, join: Combine) -> Combine:
    """Apply `function` to each run of `size` parts, then `join` the results."""
    return lambda parts: join([function(parts[i : i + size]) for i in range(0, len(parts), size)])


def _first(parts: list[Tensor]) -> Tensor:
    """Drop the batch axis."""
    return parts[0].squeeze(0)


def _only(parts: list[Tensor]) -> Tensor:
    return parts[0]


def _transpose(parts: list[Tensor]) -> Tensor:
    return parts[0].t()


def _no_bias(weights: list[Tensor]) -> Tensor:
    return torch.zeros(sum(weight.shape[0] for weight in weights))
