"""Conversions of tiny class-family training outputs, checked by the outputs of the loaded checkpoint."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.checkpoint.load import load_checkpoint
from models.checkpoint.vae import save_vae
from models.config import AttentionMode
from models.conversion.class_family import ClassOptions, convert_published
from models.conversion.conversion import Conversion, Output
from models.sampling.schedule import PredictionType, VarianceType
from tests.golden.loading import relative_error
from tests.models.conversion.running import TOLERANCE, run_golden
from tests.models.conversion.sources import (
    golden_state,
    golden_tensors,
    save_tiny_vae,
    save_training_output,
    shrink_published_models,
)
from tests.models.parts import make_vae

GOLDEN_NAMES = {
    "framedit_h_softmax_concat": "FrameDiTH-S/8-16/2-softmax_u-concat",
    "framedit_h_sum_uncond": "FrameDiTH-S/8-16/2-sum",
    "framedit_g": "FrameDiTG-S/8-16/2",
    "latte": "Latte-S/2",
    "dit3d": "DiT3D-S/2",
}
OMEGACONF_OUTPUT = Path(__file__).parent / "omegaconf_arguments.pt"


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_published_models(monkeypatch)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vae(tmp_path_factory.mktemp("vae"))


def convert(source: Path, folder: Path, vae: Path, output: dict[str, Any] | None = None, **changes: Any) -> Conversion:
    options = {"model_name": "Latte-S/2", "num_frames": 4, "image_size": 64, "num_classes": 5} | changes
    return convert_published(source, vae, ClassOptions(**options), Output(folder, **(output or {})))


@pytest.mark.parametrize("golden", GOLDEN_NAMES)
def test_a_training_output_gives_the_published_outputs(tmp_path: Path, vae: Path, golden: str) -> None:
    source = save_training_output(tmp_path / "0400000.pt", golden_state(golden), opt={"state": {}}, model={})
    tensors = golden_tensors(golden)
    num_classes = 5 if "in.y" in tensors else 0
    made = convert(source, tmp_path / "out", vae, model_name=GOLDEN_NAMES[golden], num_classes=num_classes)
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE
    assert (made.frame_size, made.model_name, made.dtype) == (64, GOLDEN_NAMES[golden], torch.float32)
    assert made.config.transformer.num_classes == (num_classes or None)
    assert made.parameters > 10_000


@pytest.mark.parametrize(
    ("golden", "name"),
    [
        ("framedit_h_softmax_concat", "FusedMatLatte-S/8-16/2-softmax_u-concat"),
        ("framedit_h_softmax_concat", "FusedMatLatteIMG-S/8-16/2-softmax_u-concat"),
        ("framedit_g", "MatLatte-S/8-16/2"),
    ],
)
def test_older_names_are_the_same_models(tmp_path: Path, vae: Path, golden: str, name: str) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state(golden))
    tensors = golden_tensors(golden)
    convert(source, tmp_path / "out", vae, model_name=name, num_classes=5 if "in.y" in tensors else 0)
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < TOLERANCE


@pytest.mark.parametrize(
    ("weights", "present", "taken"),
    [
        (None, ("ema", "model"), "ema"),
        (None, ("model",), "model"),
        ("model", ("ema", "model"), "model"),
        ("ema", ("ema", "model"), "ema"),
    ],
)
def test_takes_the_moving_average_as_published_or_the_weights_asked_for(
    tmp_path: Path, vae: Path, weights: str | None, present: tuple[str, ...], taken: str
) -> None:
    state = golden_state("latte")
    states = {"ema": state, "model": {key: tensor + 1 for key, tensor in state.items()}}
    torch.save({entry: states[entry] for entry in present} | {"train_steps": 1}, tmp_path / "x.pt")
    lines: list[str] = []
    made = convert(tmp_path / "x.pt", tmp_path / "out", vae, {"report": lines.append}, weights=weights)
    converted = load_file(tmp_path / "out" / "model.safetensors")["output.bias"]
    torch.testing.assert_close(converted, states[taken]["final_layer.linear.bias"])
    assert f"weights: {taken}" in lines
    assert made.config.provenance["weights"] == taken
    assert json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]["weights"] == taken
    assert load_checkpoint(tmp_path / "out").settings.provenance == made.config.provenance


def test_weights_that_the_file_does_not_hold_are_refused(tmp_path: Path, vae: Path) -> None:
    torch.save({"model": golden_state("latte"), "ema": None}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt holds no ema weights; it holds model"):
        convert(tmp_path / "x.pt", tmp_path / "out", vae, weights="ema")


def save_with_arguments(path: Path, kind: str, **arguments: Any) -> Path:
    """A training output of Latte-S/2 whose settings are in its own arguments."""
    known = {"model": "Latte-S/2", "num_frames": 4, "image_size": 64, "num_classes": 5, "extras": 2} | arguments
    args = argparse.Namespace(**known) if kind == "argparse" else known
    torch.save({"ema": golden_state("latte"), "args": args}, path)
    return path


@pytest.mark.parametrize("kind", ["argparse", "dict"])
def test_settings_are_read_from_the_files_own_arguments(tmp_path: Path, vae: Path, kind: str) -> None:
    source = save_with_arguments(tmp_path / "x.pt", kind, predict_xstart=True, attention_mode="flash")
    lines: list[str] = []
    made = convert_published(source, vae, ClassOptions(), Output(tmp_path / "out", report=lines.append))
    assert made.config.transformer.num_classes == 5
    assert made.config.transformer.attention_mode is AttentionMode.FLASH
    assert made.config.schedule.prediction_type is PredictionType.CLEAN
    assert any(line.startswith("from the file's arguments: model Latte-S/2, num_frames 4") for line in lines)
    other = ClassOptions(prediction=PredictionType.NOISE, attention_mode="math")
    overridden = convert_published(source, vae, other, Output(tmp_path / "other")).config
    assert overridden.schedule.prediction_type is PredictionType.NOISE
    assert overridden.transformer.attention_mode is AttentionMode.MATH


def test_reads_the_arguments_of_omegaconf_without_its_code(tmp_path: Path, vae: Path) -> None:
    """The file was saved with OmegaConf 2.4, which need not be installed."""
    made = convert_published(OMEGACONF_OUTPUT, vae, ClassOptions(), Output(tmp_path / "out"))
    config = made.config
    assert (made.model_name, config.transformer.num_frames, config.transformer.num_classes) == ("Latte-S/2", 4, 5)
    assert not config.transformer.learn_sigma
    assert config.schedule.variance_type is VarianceType.SMALL
    assert config.schedule.prediction_type is PredictionType.CLEAN


def test_unconditional_training_has_no_classes_whatever_the_dataset_has(tmp_path: Path, vae: Path) -> None:
    arguments = argparse.Namespace(model="FrameDiTH-S/8-16/2-sum", num_frames=4, image_size=64, num_classes=5, extras=1)
    torch.save({"ema": golden_state("framedit_h_sum_uncond"), "args": arguments}, tmp_path / "x.pt")
    made = convert_published(tmp_path / "x.pt", vae, ClassOptions(), Output(tmp_path / "out"))
    assert made.config.transformer.num_classes is None


def test_training_on_other_conditions_is_refused(tmp_path: Path, vae: Path) -> None:
    source = save_with_arguments(tmp_path / "x.pt", "dict", extras=78)
    with pytest.raises(ValueError, match="extras 78: supported are 1"):
        convert_published(source, vae, ClassOptions(), Output(tmp_path / "out"))


def test_assumed_settings_are_named(tmp_path: Path, vae: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    with pytest.raises(ValueError, match="does not say model, image_size"):
        convert_published(source, vae, ClassOptions(num_frames=4), Output(tmp_path / "out"))


@pytest.mark.parametrize(
    ("small", "variance"), [(None, VarianceType.LARGE), (False, VarianceType.LARGE), (True, VarianceType.SMALL)]
)
def test_a_fixed_variance_is_the_published_one(
    tmp_path: Path, vae: Path, small: bool | None, variance: VarianceType
) -> None:
    state = golden_state("latte")
    for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
        state[name] = state[name].unflatten(0, (4, 8))[:, :4].flatten(0, 1)
    source = save_training_output(tmp_path / "x.pt", state)
    made = convert(source, tmp_path / "out", vae, learned_variance=False, small_variance=small)
    assert made.config.schedule.variance_type is variance
    tensors = golden_tensors("latte")
    output = run_golden(load_checkpoint(tmp_path / "out"), tensors)
    assert relative_error(output, tensors["out"][:, :, :4]) < TOLERANCE


def test_latents_are_scaled_as_published_or_as_requested(tmp_path: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    save_vae(make_vae(scaling_factor=0.5), tmp_path / "vae")
    lines: list[str] = []
    convert(source, tmp_path / "published", tmp_path / "vae", {"report": lines.append})
    assert load_checkpoint(tmp_path / "published").vae.scaling_factor == 0.18215
    assert "latents are scaled by 0.18215; the VAE's config says 0.5" in lines
    convert(source, tmp_path / "given", tmp_path / "vae", vae_scale=0.25)
    assert load_checkpoint(tmp_path / "given").vae.scaling_factor == 0.25


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stores_all_weights_in_the_dtype_asked_for(tmp_path: Path, vae: Path, dtype: torch.dtype) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    convert(source, tmp_path / "out", vae, {"dtype": dtype})
    for file in tmp_path.glob("out/**/*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {dtype}
    tensors = golden_tensors("latte")
    assert relative_error(run_golden(load_checkpoint(tmp_path / "out"), tensors), tensors["out"]) < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.attn.qkv.bias"), r"missing: blocks\.1\.attn\.qkv\.bias"),
        (
            lambda state: state.update({"blocks.9.mlp.fc1.bias": torch.zeros(1)}),
            r"unexpected: blocks\.9\.mlp\.fc1\.bias",
        ),
        (lambda state: state.update({"pos_embed": torch.zeros(1, 4, 32)}), r"mis-shaped: pos_embed \(1, 4, 32\)"),
        (
            lambda state: state["blocks.1.mlp.fc1.bias"].fill_(float("nan")),
            r"NaN or infinity in blocks\.1\.mlp\.expand\.bias of the transformer: its training diverged",
        ),
    ],
)
def test_names_wrong_keys_and_leaves_nothing(tmp_path: Path, vae: Path, change: Any, message: str) -> None:
    state = golden_state("latte")
    change(state)
    source = save_training_output(tmp_path / "x.pt", state)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out", vae)
    assert [file.name for file in tmp_path.iterdir()] == ["x.pt"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": "Latte-Q/2"}, "unknown model name 'Latte-Q/2'"),
        ({"model_name": "LatteT2V"}, "LatteT2V is a text model"),
        ({"image_size": 65}, "image_size is 65: .* makes 64"),
        ({"image_size": 128}, "mis-shaped: pos_embed"),
        ({"num_frames": 8}, "mis-shaped: temp_embed"),
        ({"num_classes": 6}, "mis-shaped: y_embedder"),
        ({"num_classes": None}, "unexpected: y_embedder"),
        ({"learned_variance": False}, r"mis-shaped: final_layer\.linear"),
        ({"attention_mode": "flash_v2"}, "attention_mode is 'flash_v2'; supported are math, xformers and flash"),
        ({"attention_mode": "flash", "model_name": "FrameDiTG-S/8-16/2"}, "matrix attention"),
        ({"attention_mode": "xformers", "model_name": "LatteIMG-S/2"}, "attends across heads"),
    ],
)
def test_says_which_option_does_not_fit(tmp_path: Path, vae: Path, changes: dict[str, Any], message: str) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out", vae, **changes)


def test_refuses_a_vae_that_does_not_fit(tmp_path: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    with pytest.raises(ValueError, match="nowhere is not a VAE folder"):
        convert(source, tmp_path / "out", Path("nowhere"))
    save_vae(make_vae(latent_channels=8), tmp_path / "channels")
    with pytest.raises(ValueError, match="the VAE has 8 latent channels, but the transformer works on 4"):
        convert(source, tmp_path / "out", tmp_path / "channels")
    save_vae(make_vae(levels=3), tmp_path / "factor")
    with pytest.raises(ValueError, match=r"4 pixels to a latent position\) Latte-S/2 makes 32"):
        convert(source, tmp_path / "out", tmp_path / "factor")


def test_refuses_numbers_that_the_dtype_cannot_hold(tmp_path: Path, vae: Path) -> None:
    state = golden_state("latte")
    state["final_layer.linear.bias"] = torch.full_like(state["final_layer.linear.bias"], 1e6)
    source = save_training_output(tmp_path / "x.pt", state)
    with pytest.raises(ValueError, match=r"output\.bias holds numbers that torch\.float16 cannot hold"):
        convert(source, tmp_path / "out", vae, {"dtype": torch.float16})


def test_reports_stages_and_lets_the_caller_finish_the_folder(tmp_path: Path, vae: Path) -> None:
    source = save_training_output(tmp_path / "x.pt", golden_state("latte"))
    stages: list[str] = []

    def finish(folder: Path, made: Conversion) -> None:
        assert not (tmp_path / "out").exists()
        (folder / "card.json").write_text(made.model_name)

    convert(source, tmp_path / "out", vae, {"report": stages.append, "finish": finish})
    assert (tmp_path / "out" / "card.json").read_text() == "Latte-S/2"
    assert stages[0] == f"reading {source}"
    assert stages[-1] == f"writing {tmp_path / 'out'}"
