"""Cross attention from the video's tokens to the prompt's tokens.

Shapes: B batch, T frames, N tokens per frame, D width, L text tokens, h heads, d = D / h.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

# The published model adds this to the score of a padding token. It is finite, so that a row without a real token
# attends evenly to its padding and does not become NaN.
MASKED_SCORE = -10000.0


class CrossAttention(nn.Module):
    """Every token of every frame attends to the text: (B, T, N, D), (B, L, D) -> (B, T, N, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, text: Tensor, text_bias: Tensor | None) -> Tensor:
        """`text_bias` (B, 1, 1, L) is added to the scores."""
        b, t, n, width = x.shape
        q = self.q(x).view(b, t * n, self.heads, -1).transpose(1, 2)  # (B, h, T N, d)
        k, v = self.kv(text).view(b, text.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, h, L, d) each
        # softmax(q kᵀ / sqrt d + text_bias) v
        out = scaled_dot_product_attention(q, k, v, attn_mask=text_bias)
        mixed: Tensor = self.out(out.transpose(1, 2).reshape(b, t, n, width))
        return mixed
