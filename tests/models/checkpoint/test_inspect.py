from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoint.inspect import describe, inspect_checkpoint
from models.checkpoint.load import load_checkpoint
from models.conversion.class_family import ClassOptions, convert_published
from models.conversion.conversion import Output
from models.conversion.text_family import TextOptions, convert_diffusers
from models.sampling.schedule import PredictionType
from models.transformer import Transformer, count_parameters
from tests.models.conversion.sources import (
    golden_state,
    save_diffusers_folder,
    save_tiny_vae,
    save_training_output,
    shrink_published_models,
)


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_published_models(monkeypatch)


def test_describes_a_text_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    made = convert_diffusers(
        save_diffusers_folder(tmp_path / "in"),
        TextOptions(transformer=save_training_output(tmp_path / "x.pt", golden_state("framedit_h_t2v"))),
        Output(folder, torch.bfloat16),
    )
    rows = dict(inspect_checkpoint(folder))
    parameters = count_parameters(Transformer(made.config.transformer))
    assert rows == {
        "design": "local and matrix attention (FrameDiT-H), fuse concat; "
        "matrix tokens 8 for q and k, 16 for v, 8 x 4 heads",
        "conditioning": "text, encoded in 24 channels",
        "depth, width, heads": "4, 32, 4",
        "frames": "4 of 64x64 pixels",
        "latents": "4x8x8, 16 tokens a frame (patch 2)",
        "parameters": f"{parameters:,} stored as BF16",
        "predicts": "noise and variance",
        "schedule": "1000 steps, linear betas 0.0001 to 0.02, timestep_spacing leading",
        "vae": "AutoencoderKL, scaling factor 0.18215",
        "text encoder": "T5, 2 layers, width 24, at most 120 tokens",
        "converted from": "model FrameDiTHT2V-XL/256-2-1-2-concat, weights ema, vae vae",
        "files": f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()):,} bytes",
    }
    lines = describe(inspect_checkpoint(folder)).splitlines()
    assert len(lines) == len(rows)
    assert lines[1] == "conditioning         text, encoded in 24 channels"


@pytest.mark.parametrize(
    ("golden", "name", "num_classes", "design", "conditioning"),
    [
        ("dit3d", "DiT3D-S/2", 5, "joint attention over all tokens of all frames (DiT3D)", "class, 5 of them"),
        ("latte", "Latte-S/2", 5, "local attention (Latte)", "class, 5 of them"),
        (
            "framedit_h_sum_uncond",
            "FrameDiTH-S/8-16/2-sum",
            None,
            "local and matrix attention (FrameDiT-H), fuse sum; matrix tokens 8 for q and k, 16 for v, 4 x 4 heads",
            "none",
        ),
    ],
)
def test_describes_the_other_designs(
    tmp_path: Path, golden: str, name: str, num_classes: int | None, design: str, conditioning: str
) -> None:
    convert_published(
        save_training_output(tmp_path / "x.pt", golden_state(golden)),
        save_tiny_vae(tmp_path / "vae"),
        ClassOptions(model_name=name, num_frames=4, image_size=64, num_classes=num_classes),
        Output(tmp_path / "out"),
    )
    rows = dict(inspect_checkpoint(tmp_path / "out"))
    assert (rows["design"], rows["conditioning"]) == (design, conditioning)
    assert "text encoder" not in rows


def test_names_weights_that_do_not_fit(tmp_path: Path) -> None:
    convert_published(
        save_training_output(tmp_path / "x.pt", golden_state("latte")),
        save_tiny_vae(tmp_path / "vae"),
        ClassOptions(model_name="Latte-S/2", num_frames=4, image_size=64, num_classes=5),
        Output(tmp_path / "out"),
    )
    state = load_file(tmp_path / "out" / "model.safetensors")
    del state["output.bias"]
    save_file(state, tmp_path / "out" / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: output\.bias"):
        inspect_checkpoint(tmp_path / "out")


def test_refuses_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a checkpoint folder"):
        describe(inspect_checkpoint(tmp_path))


def test_a_file_that_is_cut_off_is_refused_in_one_line(tmp_path: Path) -> None:
    convert_published(
        save_training_output(tmp_path / "x.pt", golden_state("latte")),
        save_tiny_vae(tmp_path / "vae"),
        ClassOptions(
            model_name="Latte-S/2", num_frames=4, image_size=64, num_classes=5, prediction=PredictionType.CLEAN
        ),
        Output(tmp_path / "out"),
    )
    assert dict(inspect_checkpoint(tmp_path / "out"))["predicts"] == "clean latents and variance"
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors: \S[^\n]*$"):
        inspect_checkpoint(tmp_path / "out")
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors: \S[^\n]*$"):
        load_checkpoint(tmp_path / "out")
