"""The command's own part of a conversion: which options belong together, and the card."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cli.convert import CardWishes, Source, convert, make_card
from models.checkpoint.convert import Conversion
from models.checkpoint.directory import CheckpointConfig
from models.config import Conditioning
from models.sampling.samplers import SAMPLERS
from models.sampling.schedule import NoiseSchedule
from tests.tiny_checkpoint import tiny_config
from worker.errors import StartupError


@pytest.fixture
def conversion() -> Conversion:
    config = CheckpointConfig(tiny_config(), NoiseSchedule(), scaling_factor=0.18215)
    return Conversion(Path("out"), "FrameDiTH-S/2", config, frame_size=128, parameters=1, dtype=torch.float32)


def test_the_card_follows_from_the_model(conversion: Conversion) -> None:
    card = make_card("my-model", conversion, CardWishes(), names=None)
    assert (card.id, card.description, card.conditioning) == ("my-model", "FrameDiTH-S/2", "class")
    assert (card.num_frames, card.max_frames, card.size, card.fps) == (4, 4, "128x128", 8)
    assert card.class_names == ["class-0", "class-1", "class-2"]
    assert card.samplers == list(SAMPLERS)


def test_what_is_asked_for_is_in_the_card(conversion: Conversion) -> None:
    card = make_card("folder", conversion, CardWishes("name", "mine", fps=24), names=["a", "b", "c"])
    assert (card.id, card.description, card.fps, card.class_names) == ("name", "mine", 24, ["a", "b", "c"])


def test_without_a_learned_variance_there_is_no_sampler_that_needs_it(conversion: Conversion) -> None:
    transformer = replace(
        conversion.config.transformer, learn_sigma=False, conditioning=Conditioning.NONE, num_classes=None
    )
    changed = replace(conversion, config=replace(conversion.config, transformer=transformer))
    card = make_card("folder", changed, CardWishes(), names=None)
    assert set(SAMPLERS) - set(card.samplers) == {"ddpm_spaced"}
    assert (card.guidance_scale, card.class_names) == (1.0, None)


def test_names_must_be_as_many_as_the_classes(conversion: Conversion) -> None:
    with pytest.raises(ValueError, match=r"names\.txt names 2 classes, but the model has 3"):
        make_card("folder", conversion, CardWishes(class_names=Path("names.txt")), names=["a", "b"])


def test_options_of_the_other_kind_of_source_are_refused(tmp_path: Path) -> None:
    published = tmp_path / "model.pt"
    published.touch()
    output = tmp_path / "out"
    cases = [
        (Source(published, lora=tmp_path), "lora cannot be given here"),
        (Source(published, model_name="Latte-S/2"), "needs --model-name, --frames, --image-size and --vae"),
        (Source(tmp_path, num_frames=16, vae=tmp_path), "num_frames, vae cannot be given here"),
    ]
    for source, message in cases:
        with pytest.raises(StartupError, match=message):
            convert(source, output, CardWishes(), "float32", report=print)
    assert not output.exists()
