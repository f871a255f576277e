"""The blocks of a transformer with fused operations: the same function of the same weights in fewer passes over memory.

Shapes: B batch, T frames, N tokens per frame, M mapped tokens, D width.

- A gated residual is added by the norm that comes next, in one kernel.
- Attention between frames reads the projections where they lie, with no copies for heads.
- GELU is part of the product before it.
- Maps of the same input share one product; their weights are merged once, here, and the modules' own become views.
- The softmax takes out the bias of the keys, and lets that of the values through to the output, as its weights sum to
  one: `bias_out + mix_out bias_v W_outᵀ` is the bias of matrix attention as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.frame_split import FrameSplit
from models.attention.hybrid import Concat, HybridAttention
from models.attention.local import LocalAttention
from models.attention.matrix import MatrixAttention
from models.blocks import Block
from models.config import AttentionMode
from models.kernels.frame_attention import frame_attention
from models.kernels.layer_norms import gated_add, joined_norms, modulated_norm
from models.mlp import Mlp
from models.modulation import EPS, Modulation
from models.transformer import Transformer


class FusedBlocks:
    """All blocks and the norm before the output layer, as `Transformer` runs them."""

    def __init__(self, transformer: Transformer) -> None:
        self._blocks = [_FusedBlock(block) for block in transformer.blocks if isinstance(block, Block)]
        self._positioned_block = transformer.positioned_block
        self._add_frame_positions = transformer.add_frame_positions

    def __call__(
        self,
        x: Tensor,
        modulation: Modulation,
        text: Tensor | None,
        text_bias: Tensor | None,
        split: FrameSplit | None = None,
    ) -> Tensor:
        """(B, T, N, D) -> (B, T, N, D). Overwrites `x`."""
        stream = _ResidualStream(x)
        for index, block in enumerate(self._blocks):
            if index == self._positioned_block:
                stream = _ResidualStream(self._add_frame_positions(stream.value(), split))
            block(stream, modulation.blocks[index], text, text_bias, split)
        return stream.norm(*modulation.output)


class _ResidualStream:
    """The tokens x (B, T, N, D), with the last branch not added yet."""

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._branch: Tensor | None = None
        self._bias: Tensor | None = None
        self._gate: Tensor | None = None

    def add(self, branch: Tensor, bias: Tensor | None = None, gate: Tensor | None = None) -> None:
        """`x + gate (branch + bias)`; `gate` (B, 1, 1, D), `bias` (N, D)."""
        self._branch, self._bias, self._gate = branch, bias, gate

    def value(self) -> Tensor:
        """x, with every branch in it."""
        branch, bias, gate = self._branch, self._bias, self._gate
        self._branch = self._bias = self._gate = None
        if branch is not None:
            gated_add(self._x, branch, gate, bias)
        return self._x

    def norm(self, shift: Tensor, scale: Tensor) -> Tensor:
        """`LayerNorm(x) (1 + scale) + shift`, with every branch in x."""
        branch, bias, gate = self._branch, self._bias, self._gate
        self._branch = self._bias = self._gate = None
        return modulated_norm(self._x, shift, scale, EPS, branch, gate, bias)


class _FusedBlock:
    def __init__(self, block: Block) -> None:
        self._attention = _fuse_attention(block.attention)
        self._cross = block.cross
        self._mlp = block.mlp

    def __call__(
        self,
        stream: _ResidualStream,
        modulation: tuple[Tensor, ...],
        text: Tensor | None,
        text_bias: Tensor | None,
        split: FrameSplit | None,
    ) -> None:
        attention_shift, attention_scale, attention_gate, mlp_shift, mlp_scale, mlp_gate = modulation
        branch, bias = self._attention(stream.norm(attention_shift, attention_scale), split)
        stream.add(branch, bias, attention_gate)
        if self._cross is not None:
            stream.add(self._cross(stream.value(), text, text_bias))
        stream.add(_fused_mlp(self._mlp, stream.norm(mlp_shift, mlp_scale)), gate=mlp_gate)


# An attention returns its output and the bias (N, D) to be added to it. With a split, T are the frames of this process.
_Attention = Callable[[Tensor, FrameSplit | None], tuple[Tensor, Tensor | None]]


def _fuse_attention(module: nn.Module) -> _Attention:
    if isinstance(module, LocalAttention) and module.mode is AttentionMode.MATH:
        return lambda x, split: (_fused_local(module, x, split), None)
    if isinstance(module, MatrixAttention):
        return _FusedMatrix(module)
    if isinstance(module, HybridAttention):
        return _FusedHybrid(module)
    return lambda x, split: (module(x, split), None)


def _fused_local(module: LocalAttention, x: Tensor, split: FrameSplit | None = None) -> Tensor:
    if split is None:
        attended: Tensor = module.out(_attend_locally(module, module.qkv(x)))
        return attended
    return module.collect(_fused_local(module, module.spread(x, split).wait()), x.shape[2], split).wait()


def _attend_locally(module: LocalAttention, qkv: Tensor) -> Tensor:
    q, k, v = qkv.chunk(3, dim=-1)
    return frame_attention(q, k, v, column_heads=qkv.shape[2], row_heads=module.heads)


def _fused_mlp(mlp: Mlp, x: Tensor) -> Tensor:
    contracted: Tensor = mlp.contract(linear_gelu(x, mlp.expand.weight, mlp.expand.bias))
    return contracted


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`gelu(x Wᵀ + b)` with the tanh approximation, which this operation computes on CUDA in half precision only."""
    hidden: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return hidden.view(*x.shape[:-1], -1)


class _FusedMatrix:
    def __init__(self, module: MatrixAttention) -> None:
        self._module = module
        self.bias = _whole_bias(module)  # (N, D)

    def __call__(self, x: Tensor, split: FrameSplit | None) -> tuple[Tensor, Tensor]:
        module = self._module
        q, k, v = self.project(x, None)
        if split is None:
            return self.output(self.attend(q, k, v)), self.bias
        q, k, v = (module.spread(part, split).wait() for part in (q, k, v))
        return self.output(module.collect(self.attend(q, k, v, module.heads_of(split)), split).wait()), self.bias

    def project(self, x: Tensor, v_channels: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as in `MatrixAttention.project`, without their biases.

        `v_channels` (B, T, N, D) is `x` with the values' channels mapped, if that is done already.
        """
        module = self._module
        if v_channels is None:
            v_channels = F.linear(_mix(module.mix_v, x) if module.v_tokens_first else x, module.weight_v)
        return *self._queries_and_keys(x), v_channels

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: range | None = None) -> Tensor:
        """As `MatrixAttention.attend`."""
        module, config, q_bias = self._module, self._module.config, self._module.bias_qk[0]
        if heads is not None:
            q_bias = q_bias[:, module.channels_of(heads)].contiguous()
        mixed = v if module.v_tokens_first else _mix(module.mix_v, v)
        if heads is None or heads:
            row_heads = config.row_heads if heads is None else len(heads)
            mixed = frame_attention(q, k, mixed, config.column_heads, row_heads, q_bias=q_bias)
        return _mix(module.mix_out, mixed) if module.out_tokens_first else mixed

    def output(self, mixed: Tensor) -> Tensor:
        """As `MatrixAttention.output`, without the bias."""
        channels = F.linear(mixed, self._module.weight_out)
        return channels if self._module.out_tokens_first else _mix(self._module.mix_out, channels)

    def _queries_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, M, D) each, without their biases."""
        module = self._module
        if not module.qk_tokens_first:
            q, k = F.linear(x, module.weight_qk.flatten(0, 1)).chunk(2, dim=-1)
            return _mix(module.mix_qk[0], q), _mix(module.mix_qk[1], k)
        q, k = _mix(module.mix_qk.flatten(0, 1), x).chunk(2, dim=2)
        return q @ module.weight_qk[0].t(), k @ module.weight_qk[1].t()


class _FusedHybrid:
    """The local queries, keys and values and the channels of the matrix values are one product."""

    def __init__(self, module: HybridAttention) -> None:
        self._module = module
        self._matrix = _FusedMatrix(module.matrix)
        self._merged: tuple[Tensor, Tensor] | None = None
        if not module.matrix.v_tokens_first:
            self._merged = _merge(module.local.qkv, module.matrix)

    def __call__(self, x: Tensor, split: FrameSplit | None) -> tuple[Tensor, None]:
        local, matrix = self._attend(x) if split is None else self._attend_split(x, split)
        return self._fuse(x, local, matrix), None

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of both attentions, that of the matrix attention without its bias."""
        local, width = self._module.local, x.shape[-1]
        if self._merged is None:
            qkv, v_channels = local.qkv(x), None
        else:
            both = F.linear(x, *self._merged)
            qkv, v_channels = both[..., : 3 * width], both[..., 3 * width :]
        attended = local.out(_attend_locally(local, qkv))
        return attended, self._matrix.output(self._matrix.attend(*self._matrix.project(x, v_channels)))

    def _attend_split(self, x: Tensor, split: FrameSplit) -> tuple[Tensor, Tensor]:
        """The same: one of them computes while the other one exchanges tokens."""
        local, matrix = self._module.local, self._module.matrix
        positions = local.spread(x, split)
        q, k, v = (matrix.spread(part, split) for part in self._matrix.project(x, None))
        attended = local.collect(_fused_local(local, positions.wait()), x.shape[2], split)
        mixed = matrix.collect(self._matrix.attend(q.wait(), k.wait(), v.wait(), matrix.heads_of(split)), split)
        return attended.wait(), self._matrix.output(mixed.wait())

    def _fuse(self, x: Tensor, local: Tensor, matrix: Tensor) -> Tensor:
        module, bias = self._module, self._matrix.bias
        if isinstance(module.fuse, Concat):
            joined = joined_norms(local, matrix, bias, module.norm_local, module.norm_matrix)
            fused: Tensor = module.fuse.linear(joined)
        else:
            fused = module.fuse(x, module.norm_local(local), module.norm_matrix(matrix + bias.to(x.dtype)))
        return fused


def _mix(mixing: Tensor, x: Tensor) -> Tensor:
    """(M, N), (B, T, N, D) -> (B, T, M, D), whatever the strides of `x`."""
    frames = x.flatten(0, 1)
    return torch.bmm(mixing.expand(len(frames), -1, -1), frames).view(*x.shape[:2], -1, x.shape[-1])


def _whole_bias(module: MatrixAttention) -> Tensor:
    """(N, D) float32: all of matrix attention's biases that are left after the softmax."""
    of_values = module.mix_out.float() @ module.bias_v.float() @ module.weight_out.float().t()
    return (module.bias_out.float() + of_values).contiguous()


def _merge(qkv: nn.Linear, matrix: MatrixAttention) -> tuple[Tensor, Tensor]:
    """Weight (4 D, D) and bias (4 D) of both maps. Their own weights become views of it, to save memory."""
    assert qkv.bias is not None
    weight = torch.cat([qkv.weight, matrix.weight_v])
    bias = torch.cat([qkv.bias, torch.zeros_like(matrix.weight_v[0])])
    qkv.weight = nn.Parameter(weight[: len(qkv.weight)], requires_grad=False)
    matrix.weight_v = nn.Parameter(weight[len(qkv.weight) :], requires_grad=False)
    return weight, bias
