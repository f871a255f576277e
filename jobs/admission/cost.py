"""The cost of a video, known before it is made: denoising steps x rows of the batch x tokens."""

import math

from jobs.cards import ModelCard
from jobs.speed_plans import find_plan, request_plan
from jobs.videos.record import VideoRequest

# Pixels of a frame for each token, for a card without `tokens_per_frame`: a VAE of 8 x 8 and patches of 2 x 2.
_PIXELS_PER_TOKEN = 256


def video_cost(request: VideoRequest, card: ModelCard) -> int:
    """Return the cost of a request, in the unit in which workers measure their speed."""
    tokens_per_frame = card.tokens_per_frame or max(1, card.height * card.width // _PIXELS_PER_TOKEN)
    frames_per_row = min(request.generated_frames, card.frames_per_row)
    return computed_rows(request, card) * frames_per_row * tokens_per_frame


def with_rows(request: VideoRequest, card: ModelCard) -> VideoRequest:
    """Return the request with its windows, its speed plan and its rows, which are fixed before it starts.

    A plan that the card no longer has stays as it is.
    """
    update: dict[str, object] = {"windows": num_windows(request.generated_frames, card.frames_per_row)}
    plan = find_plan(card.speed_plans, request.speed, request.sampler)
    if plan is not None:
        is_guided = card.is_guided(request.guidance_scale)
        update["speed_plan"] = request_plan(plan, request.num_inference_steps, request.num_steps, is_guided=is_guided)
    request = request.model_copy(update=update)
    computed = computed_rows(request, card)
    saved = request.num_steps * rows(request, card) - computed
    return request.model_copy(update={"rows_computed": computed, "rows_saved": saved})


def computed_rows(request: VideoRequest, card: ModelCard) -> int:
    """Return the rows of all steps of a request."""
    if request.speed_plan is None:
        return request.num_steps * rows(request, card)
    return num_windows(request.generated_frames, card.frames_per_row) * sum(map(int, request.speed_plan))


def rows(request: VideoRequest, card: ModelCard) -> int:
    """Return the rows of a step that is computed in full: one a window of frames, with guidance two."""
    rows_per_window = 2 if card.is_guided(request.guidance_scale) else 1
    return num_windows(request.generated_frames, card.frames_per_row) * rows_per_window


def num_windows(num_frames: int, frames_per_row: int) -> int:
    """Return the number of windows of a video, as `models.sampling.windows` cuts it: they overlap by half."""
    stride = max(1, frames_per_row // 2)
    return 1 + math.ceil(max(0, num_frames - frames_per_row) / stride)
