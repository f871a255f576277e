"""Small pictures of what a video will be, while it is being made.

The VAE decodes one frame of the predicted clean latents. It is the same that decodes the video, so a preview takes a
fixed part of the time of a frame; a budget holds all of them to a small share of the worker's time, however large the
VAE is and however many videos are at work.
"""

import base64
import io
import logging
import time
from collections.abc import Callable

from PIL import Image
from torch import Tensor

from worker.resident import ResidentModel

logger = logging.getLogger(__name__)

MAX_BYTES = 6144
_PER_VIDEO = 8
_SHARE = 0.05
_SIDES_AND_QUALITIES = ((128, 70), (128, 40), (96, 40), (64, 40))


class Previews:
    """Decides who has a preview and when: up to 8 a video, and all of them in a twentieth of the time."""

    def __init__(self, share: float = _SHARE) -> None:
        self._share = share
        self._next_step: dict[str, int] = {}
        self._resting_until = 0.0

    def take(
        self, request_id: str, step: int, steps: int, model: ResidentModel, latents: Callable[[], Tensor | None]
    ) -> str | None:
        """A data URL, or None where none is due, or none can be made: a video needs no previews.

        `latents` gives the predicted clean latents (1, T, C, H, W), and is asked only when they are needed.
        """
        every = max(1, steps // _PER_VIDEO)
        started = time.monotonic()
        # The last step is the video itself.
        if not self._next_step.setdefault(request_id, every) <= step < steps or started < self._resting_until:
            return None
        self._next_step[request_id] = step + every
        predicted = latents()
        if predicted is None:
            return None
        try:
            return picture_of(predicted, model)
        except Exception as error:
            logger.warning("%s: no preview of step %d: %s", request_id, step, error)
            return None
        finally:
            now = time.monotonic()
            self._resting_until = now + (now - started) * (1 / self._share - 1)

    def forget(self, request_id: str) -> None:
        """To be called once a video has left."""
        self._next_step.pop(request_id, None)


def picture_of(latents: Tensor, model: ResidentModel) -> str | None:
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
