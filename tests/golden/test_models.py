"""Every model agrees with the published implementation to 1e-4 in float32."""

from pathlib import Path

import pytest
import torch

from models.conditioning import Condition
from models.config import Conditioning
from tests.golden.files import golden_files
from tests.golden.loading import load_golden_model, read_golden, relative_error

TOLERANCE = 1e-4
GUIDANCE = 4.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    files = golden_files(metafunc.config, samplers=False)
    metafunc.parametrize("golden", files, ids=[file.stem for file in files])


@torch.inference_mode()
def test_model_agrees_with_the_published_one(golden: Path) -> None:
    _, tensors = read_golden(golden)
    model = load_golden_model(golden)
    is_text = model.config.conditioning is Conditioning.TEXT
    checks = _text_outputs(model, tensors) if is_text else _class_outputs(model, tensors)
    recorded = {name for name in tensors if name.startswith("out")}
    assert recorded == checks.keys(), "every recorded output must be checked, and every check must be recorded"
    errors = {name: relative_error(checks[name], tensors[name]) for name in recorded}
    assert all(error < TOLERANCE for error in errors.values()), errors


def _class_outputs(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    x, t, labels = tensors["in.x"], tensors["in.t"], tensors.get("in.y")
    outputs = {"out": model(x, t, Condition(labels=labels))}
    if "out_cfg" in tensors:
        pair = torch.stack([labels[0], torch.tensor(model.config.num_classes)])
        twice = model(x[:1].expand(2, -1, -1, -1, -1), t[:1].expand(2), Condition(labels=pair))
        conditional, unconditional = twice.chunk(2)
        c = model.config.latent_channels
        noise = unconditional[:, :, :c] + GUIDANCE * (conditional[:, :, :c] - unconditional[:, :, :c])
        outputs["out_cfg"] = torch.cat([noise, conditional[:, :, c:]], dim=2)
    return outputs


def _text_outputs(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The published text family has its latents as (B, C, T, H, W)."""
    x, t, text, mask = (tensors[f"in.{name}"] for name in ("x", "t", "text", "text_mask"))
    latents = x.transpose(1, 2)
    outputs = {"out": model(latents, t, Condition(text=text, text_mask=mask))}
    if "out_nomask_first" in tensors:
        outputs["out_nomask_first"] = model(latents[:1], t[:1], Condition(text=text[:1]))
    return {name: output.transpose(1, 2) for name, output in outputs.items()}
