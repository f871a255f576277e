"""The norm kernels against PyTorch's in float32."""

import pytest
import torch
from torch import nn
from torch.nn.functional import silu

from models.kernels.group_norm import add_with_bias, group_norm
from models.kernels.layer_norms import gated_add, joined_norms, modulated_norm
from models.modulation import EPS, modulate

WIDTHS = [16, 96, 1152, *([384, 1024] if torch.cuda.is_available() else [])]
# Images, channels, groups, height and width: fewer pixels than chunks, several blocks, blocks cut off at the end.
IMAGES = [(3, 8, 4, 4, 4), (1, 64, 32, 23, 31)]
if torch.cuda.is_available():  # the interpreter is slow
    IMAGES += [(2, 128, 32, 16, 16), (2, 512, 32, 32, 32), (1, 256, 32, 40, 24)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("has_gate", [False, True])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_branch", [False, True])
def test_the_modulated_norm_is_that_of_the_models(
    width: int, has_branch: bool, has_bias: bool, has_gate: bool,
    device: torch.device, dtype: torch.dtype, tolerance: float,
) -> None:  # fmt: skip
    torch.manual_seed(width)
    x, branch = (2 * torch.randn(2, 2, 3, width) + 1).to(device, dtype), torch.randn(2, 2, 3, width).to(device, dtype)
    rows = torch.randn(2, 7, width).to(device, dtype)[:, :, None, None].unbind(1)  # not contiguous, as in the models
    shift, scale, gate = rows[2:5]
    bias = torch.randn(3, width, device=device)
    total = x.float()
    if has_branch:
        added = branch.float() + (bias if has_bias else 0)
        total = total + (gate.float() * added if has_gate else added)
    expected = modulate(total, shift.float(), scale.float())
    if has_branch:
        added_to = x.clone()
        gated_add(added_to, branch, gate if has_gate else None, bias if has_bias else None)
        assert (added_to.float() - total).norm() < tolerance * total.norm()
    parts = (branch, gate if has_gate else None, bias if has_bias else None) if has_branch else ()
    actual = modulated_norm(x, shift, scale, EPS, *parts).float()
    assert (actual - expected).norm() < tolerance * expected.norm()
    assert (x.float() - total).norm() < tolerance * total.norm()


@pytest.mark.parametrize("width", WIDTHS)
def test_joined_norms_are_two_norms(width: int, device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(width)
    a, b = torch.randn(2, 2, 3, 5, width).to(device, dtype)
    bias = torch.randn(5, width, device=device)
    norms = [nn.LayerNorm(width, eps=eps).to(device) for eps in (1e-5, 1e-3)]
    for norm in norms:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    expected = torch.cat([norms[0](a.float()), norms[1](b.float() + bias)], dim=-1)
    actual = joined_norms(a, b, bias, *(norm.to(dtype) for norm in norms)).float()
    assert (actual - expected).norm() < tolerance * expected.norm()


@pytest.mark.parametrize("size", IMAGES)
@pytest.mark.parametrize("with_silu", [False, True])
def test_group_norm_is_that_of_pytorch(
    size: tuple[int, ...], with_silu: bool, device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    images, channels, groups, height, width = size
    torch.manual_seed(channels)
    x = (3 * torch.randn(images, channels, height, width) + 5).to(device, dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    norm = nn.GroupNorm(groups, channels, eps=1e-6).to(device)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = norm(x.float())
    actual = group_norm(x, norm.to(dtype), with_silu)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    wanted = silu(expected) if with_silu else expected
    assert (actual.float() - wanted).norm() < tolerance * wanted.norm()

    bias = torch.randn(channels).to(device, dtype)
    wanted = norm.float()(x.float() + bias.float()[:, None, None])
    wanted = silu(wanted) if with_silu else wanted
    actual = group_norm(x, norm.to(dtype), with_silu, bias)
    assert (actual.float() - wanted).norm() < tolerance * wanted.norm()
    wanted = 2 * x.float() + bias.float()[:, None, None]
    assert (add_with_bias(x.clone(), x, bias).float() - wanted).norm() < tolerance * wanted.norm()
