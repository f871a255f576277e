"""The T5 encoder: token ids to one vector for each token. Names of parameters are those of transformers.

Shapes: B texts, L tokens, D width, N heads, K width of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.t5.config import T5Config


class RMSNorm(nn.Module):
    """`weight * x / sqrt(mean(x^2) + eps)`; the mean is computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.float().pow(2).mean(dim=-1, keepdim=True)
        return self.weight * (x * torch.rsqrt(mean + self.eps)).to(self.weight.dtype)


class SelfAttention(nn.Module):
    """(B, L, D) -> (B, L, D). The scores are not divided by sqrt(K): training is used to it."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.head_width = config.d_kv
        self.dropout_rate = config.dropout_rate
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Tensor, score_bias: Tensor) -> Tensor:
        """`score_bias` (1 or B, N, L, L) is added to the scores."""
        q, k, v = (self._heads(project(x)) for project in (self.q, self.k, self.v))
        dropout = self.dropout_rate if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, score_bias, dropout, scale=1.0)
        out: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """(B, L, N K) -> (B, N, L, K)."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)


class ReluFeedForward(nn.Module):
    """(B, L, D) -> (B, L, D): `wo(relu(wi(x)))`."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.wo(self.dropout(F.relu(self.wi(x))))
        return out


class GatedFeedForward(nn.Module):
    """(B, L, D) -> (B, L, D): `wo(gelu(wi_0(x)) * wi_1(x))`."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)
        out: Tensor = self.wo(self.dropout(gated))
        return out


class AttentionLayer(nn.Module):
    """`x + SelfAttention(norm(x))`."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, has_bias)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor, score_bias: Tensor) -> Tensor:
        out: Tensor = x + self.dropout(self.SelfAttention(self.layer_norm(x), score_bias))
        return out


class FeedForwardLayer(nn.Module):
    """`x + feed_forward(norm(x))`; the published name of the inner part is the same for both activations."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = (GatedFeedForward if config.is_gated else ReluFeedForward)(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.dropout(self.DenseReluDense(self.layer_norm(x)))
        return out


class Block(nn.Module):
    """(B, L, D) -> (B, L, D)."""

    def __init__(self, config: T5Config, has_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config, has_bias), FeedForwardLayer(config)])

    def forward(self, x: Tensor, score_bias: Tensor) -> Tensor:
        out: Tensor = self.layer[1](self.layer[0](x, score_bias))
        return out


class Stack(nn.Module):
    """All blocks, and the norm after them."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(config, has_bias=index == 0) for index in range(config.num_layers))
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)

    def distance_bias(self) -> nn.Embedding:
        """A bias of each head for each bucket of distances. The first block holds it for all."""
        bias = self.get_submodule("block.0.layer.0.SelfAttention.relative_attention_bias")
        assert isinstance(bias, nn.Embedding)
        return bias


class T5Encoder(nn.Module):
    """Token ids (B, L) and a mask (B, L), True at real tokens -> (B, L, D)."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config)
        self.dropout = nn.Dropout(config.dropout_rate)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.shared.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.shared.weight.dtype

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.dropout(self.shared(tokens))
        score_bias = self._score_bias(mask)
        for block in self.encoder.block:
            x = block(x, score_bias)
        out: Tensor = self.dropout(self.encoder.final_layer_norm(x))
        return out

    def _score_bias(self, mask: Tensor) -> Tensor:
        """The learned bias of each distance at real tokens, the smallest number at others: (B, N, L, L)."""
        length = mask.shape[1]
        positions = torch.arange(length, device=mask.device)
        distances = positions[None, :] - positions[:, None]  # from the token that attends
        buckets = distance_buckets(
            distances, self.config.relative_attention_num_buckets, self.config.relative_attention_max_distance
        )
        bias = self.encoder.distance_bias()(buckets).permute(2, 0, 1)
        return torch.where(mask[:, None, None], bias, torch.finfo(self.dtype).min)


def distance_buckets(distances: Tensor, num_buckets: int, max_distance: int) -> Tensor:
    """The bucket 0..num_buckets - 1 of each distance, of the same shape.

    One half is for tokens before and one for tokens after. In each, small distances have buckets of their own, and
    larger ones share them on a logarithmic scale; the last bucket holds all from `max_distance` on.
    """
    half = num_buckets // 2
    num_exact = half // 2
    away = distances.abs()
    scale = (half - num_exact) / math.log(max_distance / num_exact)
    shared = num_exact + (torch.log(away.float() / num_exact) * scale).long()
    return torch.where(distances > 0, half, 0) + torch.where(away < num_exact, away, shared.clamp(max=half - 1))
