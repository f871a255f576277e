"""Models with fused operations against the plain ones in float32."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import Conditioning, Fuse, Layout, MatrixAttentionConfig, Temporal
from models.kernels.fused_blocks import FusedBlocks
from models.kernels.fused_decoder import fuse_decoder
from models.kernels.support import find_obstacle
from tests.models.parts import make_vae
from tests.models.transformers import make_condition, make_config, make_latents, make_transformer

# Fewer and more mapped tokens than a frame has, which decides which side is mapped first.
MATRIX_SIZES = {"few v": MatrixAttentionConfig(2, 2, 6, 2), "few qk": MatrixAttentionConfig(2, 2, 2, 6)}
DESIGNS = {
    "local": {"temporal": Temporal.LOCAL, "matrix": None, "fuse": None},
    "joint": {"layout": Layout.JOINT, "temporal": Temporal.LOCAL, "matrix": None, "fuse": None},
    **{f"matrix, {size}": {"temporal": Temporal.MATRIX, "matrix": m, "fuse": None} for size, m in MATRIX_SIZES.items()},
    **{f"hybrid, {size}": {"matrix": m} for size, m in MATRIX_SIZES.items()},
    **{f"hybrid, {fuse.value}": {"fuse": fuse} for fuse in Fuse if fuse is not Fuse.CONCAT},
}

INTERPRETED = ["local", "joint", "matrix, few v", "hybrid, few qk", "hybrid, sum"]


@pytest.fixture(autouse=True)
def gelu_epilogue(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only CUDA has it with the tanh approximation."""

    def addmm_gelu(bias: Tensor, x: Tensor, weight: Tensor, use_gelu: bool) -> Tensor:
        return F.gelu(torch.addmm(bias, x, weight), approximate="tanh")

    if device.type == "cpu":
        monkeypatch.setattr(torch, "_addmm_activation", addmm_gelu)


@pytest.mark.parametrize(
    ("conditioning", "design"),
    [(Conditioning.CLASS, design) for design in DESIGNS]
    + [(Conditioning.TEXT, "hybrid, few qk"), (Conditioning.TEXT, "joint"), (Conditioning.NONE, "local")],
)
@torch.no_grad()
def test_fused_and_plain_transformers_agree(
    conditioning: Conditioning, design: str, device: torch.device, dtype: torch.dtype
) -> None:
    if device.type == "cpu" and design not in INTERPRETED:
        pytest.skip("the interpreter is slow: it runs a few of the cases")
    config = make_config(conditioning, depth=2, width=32, **DESIGNS[design])
    transformer = make_transformer(config).eval().requires_grad_(False).to(device)
    latents, condition = make_latents(config, 2, 3).to(device), make_condition(config, 2).to(device, torch.float32)
    timesteps = torch.tensor([5.0, 900.0], device=device)
    expected = transformer(latents, timesteps, condition)

    transformer, latents, condition = transformer.to(dtype), latents.to(dtype), condition.to(device, dtype)
    plain_error = (transformer(latents, timesteps, condition).float() - expected).norm()
    transformer.fused_blocks = FusedBlocks(transformer)
    error = (transformer(latents, timesteps, condition).float() - expected).norm()
    assert error < max(1.5 * plain_error, 1e-5 * expected.norm())  # rounding of so few numbers is a matter of chance


def test_merging_weights_keeps_them(device: torch.device) -> None:
    transformer = make_transformer(make_config(depth=2)).requires_grad_(False).to(device)
    before = {name: weight.clone() for name, weight in transformer.state_dict().items()}
    num_bytes = sum(weight.nbytes for weight in transformer.parameters())
    transformer.fused_blocks = FusedBlocks(transformer)
    after = transformer.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert sum(weight.nbytes for weight in transformer.parameters()) == num_bytes


@torch.no_grad()
def test_fused_and_plain_decoders_agree(device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    vae = make_vae(levels=2).to(device)
    latents = torch.randn(1, 4, 3, 3, device=device)
    expected = vae.decode(latents)
    fuse_decoder(vae.to(dtype))
    actual = vae.decode(latents.to(dtype)).float()
    assert (actual - expected).norm() < 2 * tolerance * expected.norm()


def test_the_obstacle_to_fused_operations_is_named() -> None:
    assert find_obstacle(torch.device("cpu"), torch.bfloat16) == "they need a CUDA device"
    if torch.cuda.is_available():
        device = torch.device("cuda")
        assert "not in float32" in (find_obstacle(device, torch.float32) or "")
        assert find_obstacle(device, torch.bfloat16) is None
        assert find_obstacle(device, torch.float16) is None
