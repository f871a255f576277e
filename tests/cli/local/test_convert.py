"""The command's own part of a conversion: which options belong together, and the card."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli.local.convert import CardOptions, Source, convert, make_card
from models.checkpoint.directory import CheckpointConfig
from models.config import Conditioning
from models.conversion.conversion import Conversion
from models.sampling.samplers import SAMPLERS
from models.sampling.schedule import NoiseSchedule
from tests.tiny_checkpoint import tiny_config
from worker.errors import StartupError


@pytest.fixture
def conversion() -> Conversion:
    config = CheckpointConfig(tiny_config(), NoiseSchedule(), scaling_factor=0.18215)
    return Conversion(Path("out"), "FrameDiTH-S/2", config, frame_size=128, parameters=1, dtype=torch.float32)


def test_defaults_of_the_card_follow_from_the_model(conversion: Conversion) -> None:
    card = make_card("my-model", conversion, CardOptions(), names=None)
    assert (card.id, card.description, card.conditioning) == ("my-model", "FrameDiTH-S/2", "class")
    assert (card.num_frames, card.max_frames, card.trained_frames) == (4, 16, 4)
    assert (card.size, card.fps) == ("128x128", 8)
    assert card.class_names == ["class-0", "class-1", "class-2"]
    assert card.samplers == list(SAMPLERS)


def test_options_are_in_the_card(conversion: Conversion) -> None:
    card = make_card("folder", conversion, CardOptions("name", "mine", fps=24), names=["a", "b", "c"])
    assert (card.id, card.description, card.fps, card.class_names) == ("name", "mine", 24, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("name", "conditioning", "sampler", "steps", "guidance"),
    [
        ("FrameDiTH-XL/128-512/2", Conditioning.CLASS, "ddpm_spaced", 50, 1.0),
        ("FrameDiTG-XL/128-512/2", Conditioning.NONE, "ddpm_spaced", 50, 1.0),
        ("Latte-XL/2", Conditioning.CLASS, "ddpm_spaced", 250, 7.0),
        ("Latte-XL/2", Conditioning.NONE, "ddpm_spaced", 250, 1.0),
        ("LatteT2V", Conditioning.TEXT, "ddim", 50, 7.5),
    ],
)
def test_defaults_are_those_of_the_published_sampling_scripts(
    conversion: Conversion, name: str, conditioning: Conditioning, sampler: str, steps: int, guidance: float
) -> None:
    is_text = conditioning is Conditioning.TEXT
    transformer = replace(
        conversion.config.transformer,
        learn_sigma=False,
        conditioning=conditioning,
        num_classes=3 if conditioning is Conditioning.CLASS else None,
        text_width=12 if is_text else None,
    )
    config = replace(conversion.config, transformer=transformer, max_tokens=120 if is_text else None)
    card = make_card("folder", replace(conversion, config=config, model_name=name), CardOptions(), names=None)
    assert (card.sampler, card.num_inference_steps, card.guidance_scale) == (sampler, steps, guidance)
    assert card.samplers == list(SAMPLERS)
    assert card.clean_caption == is_text
    assert (card.class_names is None) == (conditioning is not Conditioning.CLASS)


def test_the_number_of_class_names_must_fit(conversion: Conversion) -> None:
    with pytest.raises(ValueError, match=r"names\.txt names 2 classes, but the model has 3"):
        make_card("folder", conversion, CardOptions(class_names=Path("names.txt")), names=["a", "b"])


def test_options_of_the_other_kind_of_source_are_refused(tmp_path: Path) -> None:
    published = tmp_path / "model.pt"
    published.touch()
    output = tmp_path / "out"
    cases = [
        (Source(published, vae=tmp_path, lora=tmp_path), "lora cannot be given with a published .pt"),
        (Source(published, model_name="Latte-S/2"), "needs --vae"),
        (Source(tmp_path, num_frames=16, vae=tmp_path), "vae, num_frames cannot be given with a diffusers folder"),
    ]
    for source, message in cases:
        with pytest.raises(StartupError, match=message):
            convert(source, output, CardOptions(), "float32", report=print)
    assert not output.exists()
