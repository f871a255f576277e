"""Previews: small images of a video during denoising.

The VAE decodes one frame of the predicted clean latents. A linear map from latents to RGB would be cheaper, but one
frame costs little beside a step, which works on all frames: 0.62 TFLOP with the VAE of Stable Diffusion at 256x256,
against 4.7 TFLOP for a row of an XL model on 16 such frames. So eight previews in fifty steps with guidance are 1 %,
and show what the video will, not its colours alone. Where a VAE is larger, or a model smaller, previews become rarer:
what they cost is measured, and no video, nor all together, spend more than a small share of their time on them. Only
the first of each model, from which that is learnt, is made whatever it costs.
"""

import base64
import io
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from worker.loading.model_cache import LoadedModel

logger = logging.getLogger(__name__)

MAX_BYTES = 6144
_PER_VIDEO = 8
_SHARE = 0.05
_SIDES_AND_QUALITIES = ((128, 70), (128, 40), (96, 40), (64, 40))


@dataclass
class _Budget:
    """Of one video: since when it is made, what its previews have cost (both in seconds), when the next is due."""

    began: float
    next_step: int
    spent: float = 0.0


class Previews:
    """Decides when a preview is made: up to 8 for each video, and within a twentieth of the time.

    On CUDA, what is measured includes the wait for the step at work, so a preview is never taken for too cheap.
    """

    def __init__(self, share: float = _SHARE, clock: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._budgets: dict[str, _Budget] = {}
        self._last_cost: dict[str, float] = {}
        self._resting_until = 0.0

    def take(
        self, request_id: str, step: int, steps: int, model: LoadedModel, latents: Callable[[], Tensor | None]
    ) -> str | None:
        """A data URL, or None where none is due, or none can be made: a video needs no previews.

        To be called after each step. `latents` gives the predicted clean latents (1, T, C, H, W), and is asked only
        when they are needed.
        """
        every = max(1, steps // _PER_VIDEO)
        started = self._clock()
        budget = self._budgets.setdefault(request_id, _Budget(started, every))
        cost = self._last_cost.get(model.card.id, 0.0)
        # The last step is the video itself.
        is_due = budget.next_step <= step < steps and self._resting_until <= started
        # Time saved while no video was made does not count: each video spends a share of its own time.
        if not is_due or budget.spent + cost > self._share * (started - budget.began):
            return None
        budget.next_step = step + every
        try:
            predicted = latents()
            return None if predicted is None else picture_of(predicted, model)
        except Exception as error:
            logger.warning("%s: no preview of step %d: %s", request_id, step, error)
            return None
        finally:
            now = self._clock()
            self._last_cost[model.card.id] = now - started
            budget.spent += now - started
            self._resting_until = now + (now - started) * (1 / self._share - 1)

    def forget(self, request_id: str) -> None:
        """To be called once a video has left."""
        self._budgets.pop(request_id, None)


def picture_of(latents: Tensor, model: LoadedModel) -> str | None:
    """The middle frame of `latents` (1, T, C, H, W) as WebP in a data URL; None where it would pass `MAX_BYTES`.

    Raises as `VideoDecoder.decode` does.
    """
    middle = latents.shape[1] // 2
    frame = model.checkpoint.vae.decode(latents[:, middle : middle + 1])[0]
    image = Image.fromarray(frame.numpy())
    for side, quality in _SIDES_AND_QUALITIES:
        image.thumbnail((side, side), Image.Resampling.BOX)
        content = io.BytesIO()
        image.save(content, "WEBP", quality=quality)
        url = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
        if len(url) <= MAX_BYTES:
            return url
    return None
