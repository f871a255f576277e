from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.checkpoint.directory import CheckpointConfig, new_folder
from models.checkpoint.load import load_checkpoint
from models.checkpoint.save import save_checkpoint
from models.checkpoint.text_encoder import save_encoder
from models.config import Conditioning, TransformerConfig
from models.generate import Generation, denoise
from models.sampling.schedule import NoiseSchedule
from models.text import TextEncoder
from models.transformer import Transformer
from models.vae import VideoDecoder
from tests.models.parts import PROMPTS, TEXT_WIDTH, make_text_encoder, make_tokenizer, make_vae
from tests.models.transformers import make_local_config


def config_of(conditioning: Conditioning) -> TransformerConfig:
    text_width = TEXT_WIDTH if conditioning is Conditioning.TEXT else None
    return make_local_config(conditioning, latent_size=8, text_width=text_width)


def make_weights(config: TransformerConfig) -> dict[str, Tensor]:
    torch.manual_seed(0)
    transformer = Transformer(config)
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.1)
    return transformer.state_dict()


def save(folder: Path, conditioning: Conditioning, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    config, is_text = config_of(conditioning), conditioning is Conditioning.TEXT
    text_encoder = TextEncoder(make_tokenizer(), make_text_encoder(), 12) if is_text else None
    settings = CheckpointConfig(config, NoiseSchedule(), 0.5, 12 if is_text else None, **changes)
    with new_folder(folder) as writing:
        save_checkpoint(
            writing, settings, make_weights(config), VideoDecoder(make_vae(levels=2), 0.5), text_encoder, dtype
        )
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Conditioning, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {conditioning: save(root / conditioning.value, conditioning) for conditioning in Conditioning}


@pytest.mark.parametrize("conditioning", list(Conditioning))
def test_a_loaded_checkpoint_makes_a_video(folders: dict[Conditioning, Path], conditioning: Conditioning) -> None:
    checkpoint = load_checkpoint(folders[conditioning])
    condition = checkpoint.condition("two stars", label=1)
    generation = Generation(
        seed=1,
        num_inference_steps=2,
        guidance_scale=2.0,
        sampler="ddim",
        num_frames=3,
        condition=condition,
        negative=checkpoint.negative("", condition),
    )
    latents = denoise(checkpoint.transformer, checkpoint.schedule, generation)
    assert checkpoint.vae.decode(latents).shape == (3, 16, 16, 3)
    assert checkpoint.frame_size == 16
    assert not any(parameter.requires_grad for parameter in checkpoint.transformer.parameters())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_loaded_in_the_dtype_asked_for(tmp_path: Path, stored: torch.dtype, dtype: torch.dtype) -> None:
    checkpoint = load_checkpoint(save(tmp_path / "x", Conditioning.TEXT, stored), dtype=dtype)
    assert checkpoint.text_encoder is not None
    for model in (checkpoint.transformer, checkpoint.vae.vae, checkpoint.text_encoder.encoder):
        assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    weights = make_weights(checkpoint.config)
    for name, tensor in checkpoint.transformer.state_dict().items():
        assert torch.equal(tensor, weights[name].to(stored).to(dtype)), name


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cpu", torch.float16, "got dtype float16 on cpu: allowed there are float32, bfloat16"),
        ("cpu", torch.int64, "got dtype int64 on cpu"),
        ("xpu", torch.float32, "got device xpu: allowed are cpu, cuda"),
    ],
)
def test_refuses_other_devices_and_dtypes(tmp_path: Path, device: str, dtype: torch.dtype, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path, device, dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_says_that_there_is_no_cuda_device(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finds no CUDA device here: use cpu"):
        load_checkpoint(tmp_path, "cuda", torch.bfloat16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("output.bias"), r"missing: output\.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda state: state.update({"output.bias": torch.zeros(3)}),
            r"mis-shaped: output\.bias is \(3,\) instead of \(32,\)",
        ),
    ],
)
def test_names_wrong_weights(tmp_path: Path, change: Any, message: str) -> None:
    file = save(tmp_path / "x", Conditioning.NONE) / "model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "is not a checkpoint folder"),
        ("model.safetensors", "has no model.safetensors"),
        ("vae/config.json", "is not a VAE folder"),
        ("text_encoder/config.json", "is not a text encoder folder"),
        ("tokenizer/tokenizer.json", "holds no tokenizer"),
    ],
)
def test_names_the_file_that_is_missing(tmp_path: Path, missing: str, message: str) -> None:
    (save(tmp_path / "x", Conditioning.TEXT) / missing).unlink()
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "x")


def test_refuses_a_text_encoder_of_another_width(tmp_path: Path) -> None:
    save(tmp_path / "x", Conditioning.TEXT)
    other = make_text_encoder(d_model=16)
    save_encoder(other, tmp_path / "x" / "text_encoder")
    with pytest.raises(ValueError, match=f"text encoder's width is 16, but the transformer reads text of {TEXT_WIDTH}"):
        load_checkpoint(tmp_path / "x")


def test_conditions_of_a_class_model(folders: dict[Conditioning, Path]) -> None:
    checkpoint = load_checkpoint(folders[Conditioning.CLASS])
    assert checkpoint.condition(label=2).labels == torch.tensor([2])
    assert checkpoint.negative().labels == torch.tensor([3])
    for label in (3, -1, None):
        with pytest.raises(ValueError, match=f"got class label {label}: this checkpoint takes 0..2"):
            checkpoint.condition(label=label)


def test_conditions_of_a_text_model(folders: dict[Conditioning, Path]) -> None:
    checkpoint = load_checkpoint(folders[Conditioning.TEXT])
    condition = checkpoint.condition(PROMPTS[0])
    assert condition.text is not None
    assert condition.text.shape == (1, 10, TEXT_WIDTH)
    negative = checkpoint.negative("", condition)
    assert negative.text is not None
    assert negative.text.shape == (1, 1, TEXT_WIDTH)
    with pytest.raises(ValueError, match="got no prompt"):
        checkpoint.condition(label=1)


def test_a_published_negative_prompt_has_the_length_of_the_prompt(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save(tmp_path / "x", Conditioning.TEXT, cut_negative_to_prompt=True))
    negative = checkpoint.negative("", checkpoint.condition(PROMPTS[0]))
    assert negative.text is not None
    assert negative.text.shape == (1, 10, TEXT_WIDTH)
    with pytest.raises(ValueError, match="give the prompt's condition"):
        checkpoint.negative("")
