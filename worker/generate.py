"""What a request asks of a model; and one request to one file, without a server."""

import time
from collections.abc import Callable
from pathlib import Path

from jobs.records import Timings, VideoRequest
from models.generate import Generation, denoise
from worker.errors import NotFiniteError
from worker.finishing import finish
from worker.resident import ResidentModel


def make_video(
    request: VideoRequest,
    model: ResidentModel,
    path: Path,
    on_step: Callable[[int, int], None] | None = None,
    pictures: Path | None = None,
) -> Timings:
    """Write the MP4 of `request` to `path`, its still pictures into `pictures`; the seconds that each stage took.

    `on_step(steps done, steps in all)` is called after each denoising step; what it raises ends the work. Raises
    `ValueError` for what the checkpoint does not take, `NotFiniteError`, and `EncodeError`.
    """
    started = time.perf_counter()
    checkpoint = model.checkpoint
    latents = denoise(checkpoint.transformer, checkpoint.schedule, to_generation(request, model), on_step)
    if not latents.isfinite().all():
        raise NotFiniteError(request.num_inference_steps, request.sampler, request.guidance_scale)
    denoise_s = time.perf_counter() - started
    decode_s, encode_s = finish(latents, checkpoint.vae, request.fps, path, pictures)
    return Timings(denoise_s=denoise_s, decode_s=decode_s, encode_s=encode_s)


def to_generation(request: VideoRequest, model: ResidentModel) -> Generation:
    """What the model is to do; raises `ValueError` for a request that its checkpoint does not take."""
    checkpoint = model.checkpoint
    guided = request.guidance_scale != 1 and model.card.conditioning != "none"
    condition = checkpoint.condition(request.prompt, request.class_label)
    return Generation(
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale if guided else 1.0,
        sampler=request.sampler,
        num_frames=request.num_frames,
        condition=condition,
        negative=checkpoint.negative(request.negative_prompt or "", condition) if guided else None,
    )
