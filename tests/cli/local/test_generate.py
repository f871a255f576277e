from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.client.source import Source
from cli.local.generate import plan_generation, write_video
from jobs.errors import InvalidRequestError
from jobs.settings import Settings
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import make_tiny_checkpoint

FIELDS = {"class_label": 0, "num_inference_steps": 2, "guidance_scale": 1.0}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "checkpoints").mkdir()
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    return Settings(checkpoints=tmp_path / "checkpoints", device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(path)
    return path


def make(settings: Settings, output: Path, source: Source | None, **fields: object) -> np.ndarray:
    plan = plan_generation(settings, output, FIELDS | fields, source)
    write_video(plan, settings)
    return decode_mp4(output).frames


def test_an_image_starts_a_video_that_is_edited_and_extended(settings: Settings, image: Path, tmp_path: Path) -> None:
    first = tmp_path / "first.mp4"
    frames = make(settings, first, Source.of(str(image), None, None, None, files_only=True))
    plain = make(settings, tmp_path / "plain.mp4", None, seed=1)
    assert abs(frames[0].astype(float) - 90).mean() < abs(plain[0].astype(float) - 90).mean()
    edited = make(settings, tmp_path / "edited.mp4", Source.of(None, None, str(first), None), strength=0.5)
    assert edited.shape == frames.shape
    extended = make(settings, tmp_path / "extended.mp4", Source.of(None, None, None, str(first)), num_frames=2)
    assert len(extended) == len(frames) + 2
    assert abs(extended[0].astype(float) - frames[0]).mean() < 5


def test_a_reference_is_a_file_and_fits_the_request(settings: Settings, image: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="--edit is 'video_0123', which is not a file"):
        Source.of(None, None, "video_0123", None, files_only=True)
    source = Source.of(str(image), None, None, None, files_only=True)
    with pytest.raises(InvalidRequestError, match="a video has at least 2"):
        plan_generation(settings, tmp_path / "out.mp4", FIELDS | {"num_frames": 1}, source)
    with pytest.raises(InvalidRequestError, match="unknown fields: strength"):
        plan_generation(settings, tmp_path / "out.mp4", FIELDS | {"strength": 0.5}, source)
