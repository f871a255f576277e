"""Where the text encoder computes, by FRAMEDIT_TEXT_ENCODER_DEVICE."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoint.load import Checkpoint, TextPlace, load_checkpoint
from models.config import Conditioning
from models.text import TextEncoder
from tests.models.checkpoint.test_load import save
from worker.device import choose_text_place
from worker.errors import StartupError
from worker.loading.model_fingerprint import fingerprint

CUDA = torch.device("cuda")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "text", Conditioning.TEXT)


def text_encoder_of(checkpoint: Checkpoint) -> TextEncoder:
    assert checkpoint.text_encoder is not None
    return checkpoint.text_encoder


def encode(checkpoint: Checkpoint) -> torch.Tensor:
    text = checkpoint.condition("a red circle").text
    assert text is not None
    return text


@pytest.mark.parametrize(
    ("name", "place"), [("auto", "device"), ("cuda", "device"), ("cpu", "cpu"), ("offload", "offload")]
)
def test_every_setting_is_a_place_on_cuda(name: str, place: str) -> None:
    assert choose_text_place(name, CUDA) == place


@pytest.mark.parametrize(("name", "place"), [("auto", "device"), ("cpu", "cpu")])
def test_a_worker_on_the_cpu_encodes_there(name: str, place: str) -> None:
    assert choose_text_place(name, torch.device("cpu")) == place


@pytest.mark.parametrize("name", ["cuda", "offload"])
def test_cuda_is_refused_for_a_worker_on_the_cpu(name: str) -> None:
    with pytest.raises(StartupError, match=f"text_encoder_device is '{name}', but the worker's device is cpu: set"):
        choose_text_place(name, torch.device("cpu"))


@pytest.mark.parametrize("place", ["device", "cpu", "offload"])
def test_on_the_cpu_every_place_is_the_same(folder: Path, place: TextPlace) -> None:
    plain, placed = load_checkpoint(folder), load_checkpoint(folder, text_place=place)
    assert not text_encoder_of(placed).is_offloaded
    assert torch.equal(encode(placed), encode(plain))
    assert fingerprint(placed) == fingerprint(plain)


def test_the_fingerprint_tells_where_prompts_are_encoded(folder: Path) -> None:
    checkpoint = load_checkpoint(folder)
    encoder = text_encoder_of(checkpoint)
    elsewhere = TextEncoder(encoder.tokenizer, encoder.encoder, encoder.max_tokens, torch.device("meta"))
    assert fingerprint(replace(checkpoint, text_encoder=elsewhere)) != fingerprint(checkpoint)


@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_offloaded_encoder_gives_the_bits_of_one_on_the_device(folder: Path, dtype: torch.dtype) -> None:
    there, offloaded = (load_checkpoint(folder, CUDA, dtype, text_place=place) for place in ("device", "offload"))
    assert text_encoder_of(offloaded).is_offloaded
    assert text_encoder_of(offloaded).encoder.device.type == "cpu"
    assert torch.equal(encode(offloaded), encode(there))
    assert fingerprint(offloaded) == fingerprint(there)


@needs_cuda
def test_an_encoder_on_the_cpu_of_a_worker_on_cuda_is_another_model(folder: Path) -> None:
    there, on_cpu = (load_checkpoint(folder, CUDA, text_place=place) for place in ("device", "cpu"))
    assert encode(on_cpu).device.type == "cpu"
    torch.testing.assert_close(encode(on_cpu), encode(there).cpu(), rtol=1e-3, atol=1e-3)
    assert fingerprint(on_cpu) != fingerprint(there)
