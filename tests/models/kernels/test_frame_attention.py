"""The kernel against PyTorch's attention in float32, over every way in which its tiles are chosen."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from models.kernels.frame_attention import MAX_FRAMES, frame_attention

FRAMES = [1, 3, 16, 17, 32, 40, 64, 100, 128, 200, MAX_FRAMES]  # 16 to 256 keys, one to four blocks of queries
# Tokens of queries and keys, tokens of values, column heads, row heads, width.
SIZES = {
    "local": (3, 3, 3, 2, 144),  # 72 channels of a head, as XL
    "local, 64 channels": (2, 2, 2, 2, 128),
    "matrix": (4, 16, 2, 2, 144),
    "matrix, one key token": (3, 6, 3, 1, 40),
    "few channels": (2, 4, 2, 4, 16),
}

INTERPRETED = [(3, "matrix"), (17, "matrix, one key token"), (3, "local"), (100, "few channels")]


def reference(q: Tensor, k: Tensor, v: Tensor, column_heads: int, row_heads: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        batch, frames, tokens, width = x.shape
        blocks = x.reshape(batch, frames, column_heads, tokens // column_heads, row_heads, width // row_heads)
        return blocks.permute(0, 2, 4, 1, 3, 5).reshape(batch, column_heads * row_heads, frames, -1)

    batch, frames, tokens, width = v.shape
    out = scaled_dot_product_attention(split(q), split(k), split(v))
    blocks = out.view(batch, column_heads, row_heads, frames, tokens // column_heads, width // row_heads)
    return blocks.permute(0, 3, 1, 4, 2, 5).reshape(v.shape)


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("size", SIZES)
def test_attention_is_that_of_pytorch(
    size: str, frames: int, device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    if device.type == "cpu" and (frames, size) not in INTERPRETED:
        pytest.skip("the interpreter is slow: it runs a few of the cases")
    qk_tokens, v_tokens, column_heads, row_heads, width = SIZES[size]
    torch.manual_seed(frames)
    parts = torch.randn(2, frames, qk_tokens, 2 * width).to(device, dtype)
    q, k = parts.chunk(2, dim=-1)  # not contiguous, as the projections are
    v = torch.randn(2, frames, v_tokens, 3 * width).to(device, dtype)[..., width : 2 * width]
    bias = torch.randn(qk_tokens, width).to(device, dtype)
    for q_bias in (None, bias):
        biased = q if q_bias is None else q + q_bias
        expected = reference(biased.float(), k.float(), v.float(), column_heads, row_heads)
        actual = frame_attention(q, k, v, column_heads, row_heads, q_bias).float()
        assert (actual - expected).norm() < tolerance * expected.norm()


def test_batches_are_apart(device: torch.device, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 4, 5, 2, 32).to(device, dtype)
    together = frame_attention(q, k, v, 2, 2)
    alone = torch.cat([frame_attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], 2, 2) for i in range(4)])
    assert torch.equal(together, alone)
