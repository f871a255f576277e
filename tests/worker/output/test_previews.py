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
from worker.loading.model_cache import LoadedModel
from worker.output.previews import MAX_BYTES, Previews, picture_of

LATENTS = torch.randn(1, NUM_FRAMES, 2, PIXELS // 2, PIXELS // 2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tiny(models: dict[str, LoadedModel]) -> LoadedModel:
    return models["tiny"]


def pixels_of(url: str | None) -> NDArray[np.int64]:
    assert url is not None
    kind, _, content = url.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert image.format == "WEBP"
        return np.asarray(image.convert("RGB")).astype(np.int64)


def showing(model: LoadedModel, frames: Tensor) -> LoadedModel:
    """The model with a VAE that decodes every frame to the first of `frames` (T, H, W, 3)."""

    class Showing(VideoDecoder):
        def decode(self, latents: Tensor) -> Tensor:
            return frames[: latents.shape[1]]

    vae = Showing(model.checkpoint.vae.vae, 1.0)
    return replace(model, checkpoint=replace(model.checkpoint, vae=vae))


def test_a_preview_is_the_frame_in_the_middle(tiny: LoadedModel) -> None:
    expected = tiny.checkpoint.vae.decode(LATENTS)[NUM_FRAMES // 2].numpy().astype(np.int64)
    pixels = pixels_of(picture_of(LATENTS, tiny))
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).mean() < 20  # WebP takes from colours


def test_a_preview_is_small_whatever_it_shows(tiny: LoadedModel) -> None:
    noise = torch.randint(0, 256, (1, 512, 512, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    url = picture_of(LATENTS, showing(tiny, noise))
    assert max(pixels_of(url).shape) <= 128
    assert url is not None
    assert len(url) <= MAX_BYTES


class Clock:
    """A clock that advances only when the test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def costing(model: LoadedModel, clock: Clock, seconds: float) -> LoadedModel:
    """The model with a VAE that takes so long for a frame."""

    class Slow(VideoDecoder):
        def decode(self, latents: Tensor) -> Tensor:
            assert latents.shape[1] == 1, "a preview is one frame"
            clock.now += seconds
            return super().decode(latents)

    vae = Slow(model.checkpoint.vae.vae, 1.0)
    return replace(model, checkpoint=replace(model.checkpoint, vae=vae))


def make(previews: Previews, clock: Clock, model: LoadedModel, request_ids: list[str], steps: int = 50) -> list[int]:
    """Make videos side by side, a second for each step of each; the steps that had a preview."""
    seen = []
    for step in range(1, steps + 1):
        for request_id in request_ids:
            clock.now += 1.0
            if previews.take(request_id, step, steps, model, lambda: LATENTS) is not None:
                seen.append(step)
    for request_id in request_ids:
        previews.forget(request_id)
    return seen


def test_a_video_has_eight_previews_and_none_of_its_last_step(tiny: LoadedModel) -> None:
    clock = Clock()
    previews, model = Previews(clock=clock), costing(tiny, clock, 0.01)
    assert make(previews, clock, model, ["a"]) == [6, 12, 18, 24, 30, 36, 42, 48]
    assert make(previews, clock, model, ["b"], steps=3) == [2]
    assert make(previews, clock, model, ["a"]) == [6, 12, 18, 24, 30, 36, 42, 48]


def test_a_video_that_goes_on_elsewhere_is_seen_soon(tiny: LoadedModel) -> None:
    assert Previews().take("a", 31, 50, tiny, lambda: LATENTS) is not None


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("cost", [0.01, 0.3, 1.0, 2.0, 30.0])
def test_previews_keep_to_their_share_of_the_time_however_large_the_vae(
    tiny: LoadedModel, cost: float, together: int
) -> None:
    clock = Clock()
    previews, model = Previews(clock=clock), costing(tiny, clock, cost)
    # The first preview measures the cost.
    assert make(previews, clock, model, ["first"], steps=2) == [1]
    made = 0
    for turn in range(3):
        clock.now += 3600  # no time of anybody's
        began = clock.now
        taken = len(make(previews, clock, model, [f"{turn} {number}" for number in range(together)]))
        assert taken * cost <= 0.05 * (clock.now - began)
        assert taken <= 8 * together
        made += taken
    # The share is used, too: of 50 s, 2.5 are enough for one of 2 s, and of 200 s too little for one of 30 s.
    assert (made == 24 * together) == (cost == 0.01)
    assert (made >= 3) == (cost <= 2.0)


def test_a_preview_that_cannot_be_made_is_done_without(tiny: LoadedModel, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    previews = Previews(clock=clock)
    assert previews.take("a", 10, 20, tiny, lambda: LATENTS * float("nan")) is None
    assert "a: no preview of step 10" in caplog.text
    clock.now += 1000
    assert previews.take("a", 12, 20, tiny, lambda: None) is None
