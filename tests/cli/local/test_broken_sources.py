"""`framedit convert` with damaged sources: one sentence that names the file and the reason, status 2, nothing left."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from cli.main import app
from tests.models.conversion.sources import (
    golden_state,
    save_diffusers_folder,
    save_tiny_vae,
    save_training_output,
    shrink_published_models,
)

Damage = Callable[[Path], None]
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
ENCODER = "text_encoder/model.safetensors"


def cut_off(name: str) -> Damage:
    def damage(source: Path) -> None:
        whole = (source / name).read_bytes()
        (source / name).write_bytes(whole[: len(whole) // 2])

    return damage


def empty(name: str) -> Damage:
    return lambda source: (source / name).write_bytes(b"")


def without(name: str) -> Damage:
    return lambda source: (source / name).unlink()


def break_json(name: str) -> Damage:
    return lambda source: (source / name).write_text('{\n  "sample_size": ,\n}')


def with_nan(name: str) -> Damage:
    def damage(source: Path) -> None:
        tensors = load_file(source / name)
        key = sorted(key for key, tensor in tensors.items() if tensor.is_floating_point())[0]
        tensors[key] = torch.full_like(tensors[key], float("nan"))
        save_file(tensors, source / name, metadata={"format": "pt"})

    return damage


def empty_tokenizer(source: Path) -> None:
    shutil.rmtree(source / "tokenizer")
    (source / "tokenizer").mkdir()


@pytest.fixture(autouse=True)
def _small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_published_models(monkeypatch)


@pytest.fixture(scope="module")
def diffusers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_diffusers_folder(tmp_path_factory.mktemp("source"))


def convert(source: Path, folder: Path, *options: object) -> Result:
    return CliRunner().invoke(app, ["convert", str(source), str(folder / "out"), *map(str, options)])


def assert_refused(result: Result, folder: Path, *named: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    [error] = [line for line in result.stderr.splitlines() if line.startswith("framedit: ")]
    assert result.stderr.splitlines()[-1] == error, "the error is one line, and the last"
    assert "Traceback" not in result.output
    for words in named:
        assert words in error
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut_off(TRANSFORMER), ("transformer", "cut off")),
        (cut_off(VAE), ("vae", "cut off")),
        (cut_off(ENCODER), ("text_encoder", "cut off")),
        (empty(TRANSFORMER), ("transformer", "is empty")),
        (empty(VAE), ("vae", "is empty")),
        (empty(ENCODER), ("text_encoder", "is empty")),
        (without(TRANSFORMER), ("transformer", "holds no weights")),
        (without(VAE), ("vae",)),
        (without(ENCODER), ("text_encoder", "model.safetensors")),
        (with_nan(TRANSFORMER), ("NaN or infinity", "the transformer")),
        (with_nan(VAE), ("NaN or infinity", "the VAE")),
        (with_nan(ENCODER), ("NaN or infinity", "the text encoder")),
        (break_json("transformer/config.json"), ("transformer/config.json", "line 2")),
        (break_json("vae/config.json"), ("vae/config.json", "line 2")),
        (break_json("text_encoder/config.json"), ("text_encoder/config.json", "line 2")),
        (break_json("scheduler/scheduler_config.json"), ("scheduler/scheduler_config.json", "line 2")),
        (break_json("tokenizer/tokenizer_config.json"), ("tokenizer/tokenizer_config.json", "line 2")),
        (empty_tokenizer, ("tokenizer", "holds no tokenizer", "tokenizer.json")),
    ],
)
def test_a_damaged_diffusers_folder_is_refused(
    diffusers_folder: Path, tmp_path: Path, damage: Damage, named: tuple[str, ...]
) -> None:
    source = shutil.copytree(diffusers_folder, tmp_path / "source")
    damage(source)
    (tmp_path / "made").mkdir()
    assert_refused(convert(source, tmp_path / "made"), tmp_path / "made", *named)


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"", "is empty"), (b"hello", "cannot read"), (b"PK\x03\x04 cut", "cannot read"), (None, "blocks.1.mlp")],
)
def test_a_damaged_training_output_is_refused(tmp_path: Path, content: bytes | None, named: str) -> None:
    state = golden_state("latte")
    state["blocks.1.mlp.fc1.bias"].fill_(float("nan"))
    source = save_training_output(tmp_path / "model.pt", state)
    if content is not None:
        source.write_bytes(content)
    vae = save_tiny_vae(tmp_path / "vae")
    (tmp_path / "made").mkdir()
    options = ("--model-name", "Latte-S/2", "--frames", 4, "--image-size", 64, "--classes", 5, "--vae", vae)
    assert_refused(convert(source, tmp_path / "made", *options), tmp_path / "made", named)
