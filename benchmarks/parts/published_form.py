"""The class family in the published form: the same function as `models.transformer`, with the published operations.

It is the other side of `benchmarks.models`, so it keeps the published cost and adds none: the embeddings of timestep
and label repeated to every token and added anew for every block (in the local design to every sequence), softmax of U
and a three-factor product at each call of a matrix linear, attention with its scores and softmax spelled out, copies
where the published code makes them, and a concatenation before the fusing linear map. Names are those of published
state dicts. Only what the benchmark compares is here: class-conditional, softmax token mixing, matrix bias, fuse mode
`concat`.

Shapes: B batch, T frames, N tokens per frame, D width, S sequences of L tokens (B T of N, or B N of T, or B of T N).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Layout, MatrixAttentionConfig, Temporal, TransformerConfig
from models.embeddings import FREQUENCIES, frame_positions, token_positions

# Of timestep and label, in this order.
Embeddings = tuple[Tensor, Tensor]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    attended: Tensor = scores.softmax(dim=-1) @ v
    return attended


class Attention(nn.Module):
    """(S, L, D) -> (S, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        s, length, width = x.shape
        qkv = self.qkv(x).reshape(s, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).contiguous()
        out: Tensor = self.proj(softmax_attention(*qkv.unbind(0)).transpose(1, 2).reshape(s, length, width))
        return out


class MatrixLinear(nn.Module):
    """(B, T, N, D) -> (B, T, M, D)."""

    def __init__(self, tokens: int, mapped_tokens: int, width: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(tokens, mapped_tokens))
        self.u_temperature = nn.Parameter(torch.ones(1, mapped_tokens))
        self.w = nn.Parameter(torch.randn(width, width) / math.sqrt(width))
        self.bias = nn.Parameter(torch.randn(mapped_tokens, width) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        mixing = (self.u / self.u_temperature).softmax(dim=0)
        mapped = torch.einsum("nm,btnd,de->btme", mixing, x, self.w)
        mapped += self.bias
        return mapped


class MatrixAttention(nn.Module):
    """(B, T, N, D) -> (B, T, N, D)."""

    def __init__(self, config: MatrixAttentionConfig, tokens: int, width: int) -> None:
        super().__init__()
        self.config = config
        self.linear_q = MatrixLinear(tokens, config.qk_tokens, width)
        self.linear_k = MatrixLinear(tokens, config.qk_tokens, width)
        self.linear_v = MatrixLinear(tokens, config.v_tokens, width)
        self.proj_v = MatrixLinear(config.v_tokens, tokens, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, _, width = x.shape
        c, r = self.config.column_heads, self.config.row_heads
        q, k, v = (self._heads(linear(x)) for linear in (self.linear_q, self.linear_k, self.linear_v))
        out = softmax_attention(q, k, v).reshape(b, c, r, t, -1, width // r)
        merged: Tensor = self.proj_v(out.permute(0, 3, 1, 4, 2, 5).reshape(b, t, -1, width))
        return merged

    def _heads(self, x: Tensor) -> Tensor:
        b, t, tokens, width = x.shape
        c, r = self.config.column_heads, self.config.row_heads
        blocks = x.reshape(b, t, c, tokens // c, r, width // r).permute(0, 2, 4, 1, 3, 5)
        return blocks.reshape(b, c * r, t, -1)


class FusedAttention(nn.Module):
    """(B, T, N, D) -> (B, T, N, D): local and matrix attention, concatenated."""

    def __init__(self, config: MatrixAttentionConfig, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.vanilla_attention = Attention(width, heads)
        self.matrix_attention = MatrixAttention(config, tokens, width)
        self.norm_local = nn.LayerNorm(width)
        self.norm_global = nn.LayerNorm(width)
        self.output_linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, t, n, width = x.shape
        local = self.vanilla_attention(x.transpose(1, 2).reshape(b * n, t, width))
        local = self.norm_local(local.reshape(b, n, t, width).transpose(1, 2))
        fused: Tensor = self.output_linear(torch.cat([local, self.norm_global(self.matrix_attention(x))], dim=-1))
        return fused


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """(S, L, D), (S, L or 1, D) -> (S, L, D)."""

    def __init__(self, config: TransformerConfig, index: int) -> None:
        super().__init__()
        width, tokens = config.width, config.tokens_per_frame
        self.tokens = tokens
        self.attn: nn.Module = Attention(width, config.heads)
        if config.is_temporal(index) and config.matrix is not None:
            is_hybrid = config.temporal is Temporal.HYBRID
            self.attn = (
                FusedAttention(config.matrix, tokens, width, config.heads)
                if is_hybrid
                else MatrixAttention(config.matrix, tokens, width)
            )
        self.mlp = Mlp(width)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(condition).chunk(6, dim=-1)
        x = x + gate_a * self._attend(self.norm(x) * (1 + scale_a) + shift_a)
        moved: Tensor = x + gate_m * self.mlp(self.norm(x) * (1 + scale_m) + shift_m)
        return moved

    def _attend(self, x: Tensor) -> Tensor:
        if isinstance(self.attn, Attention):
            attended: Tensor = self.attn(x)
            return attended
        frames = x.reshape(-1, self.tokens, *x.shape[1:]).transpose(1, 2)  # (B, T, N, D), a view as published
        out: Tensor = self.attn(frames).transpose(1, 2).reshape(x.shape)
        return out


class FinalLayer(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(config.width, config.patch_size**2 * config.out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 2 * config.width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        out: Tensor = self.linear(self.norm(x) * (1 + scale) + shift)
        return out


class PublishedForm(nn.Module):
    """(B, T, C, H, W), (B,), (B,) -> (B, T, out_channels, H, W); weights are random."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.num_classes is not None
        self.config = config
        width, side = config.width, math.isqrt(config.tokens_per_frame)
        patch = nn.Conv2d(config.latent_channels, width, config.patch_size, config.patch_size)
        self.x_embedder = nn.ModuleDict({"proj": patch})
        self.pos_embed = nn.Parameter(token_positions(side, width)[None])
        self.temp_embed = nn.Parameter(frame_positions(config.num_frames, width)[None])
        mlp = nn.Sequential(nn.Linear(FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.t_embedder = nn.ModuleDict({"mlp": mlp})
        self.y_embedder = nn.ModuleDict({"embedding_table": nn.Embedding(config.num_classes + 1, width)})
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.final_layer = FinalLayer(config)

    def forward(self, latents: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        b, t = latents.shape[:2]
        x = self.x_embedder["proj"](latents.flatten(0, 1)).flatten(2).transpose(1, 2) + self.pos_embed  # (B T, N, D)
        embeddings = (self._embed(timesteps), self.y_embedder["embedding_table"](labels))  # (B, D) each
        joint = self.config.layout is Layout.JOINT
        x = self._joint_blocks(x, embeddings, b) if joint else self._alternating_blocks(x, embeddings, b)
        p, side = self.config.patch_size, math.isqrt(x.shape[1])
        pixels = torch.einsum("shwpqc->schpwq", x.reshape(b * t, side, side, p, p, -1))
        return pixels.reshape(b, t, -1, side * p, side * p)

    def _embed(self, timesteps: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, device=timesteps.device) / half)
        angles = timesteps[:, None].float() * rates
        features = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.pos_embed.dtype)
        embedded: Tensor = self.t_embedder["mlp"](features)
        return embedded

    def _joint_blocks(self, x: Tensor, embeddings: Embeddings, b: int) -> Tensor:
        n, width = x.shape[1:]
        x = x.reshape(b, -1, n, width).transpose(1, 2).reshape(b * n, -1, width) + self.temp_embed
        x = x.reshape(b, n, -1, width).transpose(1, 2).reshape(b, -1, width)
        timestep, label = (embedding[:, None].repeat(1, x.shape[1], 1) for embedding in embeddings)
        condition = timestep + label
        for block in self.blocks:
            x = block(x, condition)
        out: Tensor = self.final_layer(x, condition)
        return out.reshape(-1, n, out.shape[-1])

    def _alternating_blocks(self, x: Tensor, embeddings: Embeddings, b: int) -> Tensor:
        n, width = x.shape[1:]
        t = x.shape[0] // b
        spatial, temporal = self._repeated(embeddings, t, n), self._repeated(embeddings, n, t)
        for index in range(0, len(self.blocks), 2):
            x = self.blocks[index](x, spatial[0] + spatial[1])
            x = x.reshape(b, t, n, width).transpose(1, 2).reshape(b * n, t, width)
            if index == 0:
                x = x + self.temp_embed
            x = self.blocks[index + 1](x, temporal[0] + temporal[1])
            x = x.reshape(b, n, t, width).transpose(1, 2).reshape(b * t, n, width)
        out: Tensor = self.final_layer(x, spatial[0] + spatial[1])
        return out

    def _repeated(self, embeddings: Embeddings, sequences: int, length: int) -> list[Tensor]:
        """For `sequences` of `length` tokens from each sample; the local design has one embedding for a sequence."""
        tokens = 1 if self.config.temporal is Temporal.LOCAL else length
        return [embedding.repeat_interleave(sequences, 0)[:, None].repeat(1, tokens, 1) for embedding in embeddings]
