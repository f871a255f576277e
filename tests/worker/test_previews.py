import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.vae import VideoDecoder
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS
from worker.previews import MAX_BYTES, Previews, picture_of
from worker.resident import ResidentModel

LATENTS = torch.randn(1, NUM_FRAMES, 2, PIXELS // 2, PIXELS // 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tiny(models: dict[str, ResidentModel]) -> ResidentModel:
    return models["tiny"]


def pixels_of(url: str | None) -> NDArray[np.int64]:
    assert url is not None
    kind, _, content = url.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB")).astype(np.int64)


def showing(model: ResidentModel, frames: Tensor) -> ResidentModel:
    """The model with a VAE that decodes every frame to the first of `frames` (T, H, W, 3)."""

    class Showing(VideoDecoder):
        def decode(self, latents: Tensor) -> Tensor:
            return frames[: latents.shape[1]]

    vae = Showing(model.checkpoint.vae.vae, 1.0)
    return replace(model, checkpoint=replace(model.checkpoint, vae=vae))


def test_a_preview_is_the_frame_in_the_middle(tiny: ResidentModel) -> None:
    expected = tiny.checkpoint.vae.decode(LATENTS)[NUM_FRAMES // 2].numpy().astype(np.int64)
    pixels = pixels_of(picture_of(LATENTS, tiny))
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 20  # WebP takes from colours


def test_a_preview_is_small_whatever_it_shows(tiny: ResidentModel) -> None:
    noise = torch.randint(0, 256, (1, 512, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    url = picture_of(LATENTS, showing(tiny, noise))
    assert max(pixels_of(url).shape) <= 128
    assert url is not None
    assert len(url) <= MAX_BYTES


def test_a_video_has_eight_previews_and_none_of_its_last_step(tiny: ResidentModel) -> None:
    previews = Previews(share=1.0)  # no rest between them
    taken = [s for s in range(1, 51) if previews.take("a", s, 50, tiny, lambda: LATENTS) is not None]
    assert taken == [6, 12, 18, 24, 30, 36, 42, 48]
    few = [s for s in range(1, 4) if previews.take("b", s, 3, tiny, lambda: LATENTS) is not None]
    assert few == [1, 2]
    previews.forget("a")
    assert previews.take("a", 6, 50, tiny, lambda: LATENTS) is not None


def test_a_video_that_goes_on_elsewhere_is_seen_soon(tiny: ResidentModel) -> None:
    assert Previews().take("a", 31, 50, tiny, lambda: LATENTS) is not None


def test_previews_keep_to_their_share_of_the_time(tiny: ResidentModel) -> None:
    previews = Previews(share=1e-9)
    assert previews.take("a", 10, 20, tiny, lambda: LATENTS) is not None
    assert previews.take("b", 10, 20, tiny, lambda: LATENTS) is None


def test_a_preview_that_cannot_be_made_is_done_without(tiny: ResidentModel, caplog: pytest.LogCaptureFixture) -> None:
    previews = Previews(share=1.0)
    assert previews.take("a", 10, 20, tiny, lambda: LATENTS * float("nan")) is None
    assert "a: no preview of step 10" in caplog.text
    assert previews.take("a", 12, 20, tiny, lambda: None) is None
