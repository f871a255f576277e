"""One request to one file, without a server; and the translation of a request and its reference for the model."""

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.videos.record import Timings, VideoRequest
from models.adapters.adapter import ScaledAdapter
from models.generate import Generation, OnStep, Source, denoise
from models.sampling.known_frames import KnownFrames
from models.vae import VideoDecoder
from worker.errors import NotFiniteError
from worker.loading.model_cache import LoadedModel
from worker.output.provenance import DEFAULT_PROVENANCE, Provenance
from worker.output.video_files import write_video_files


def make_video(
    request: VideoRequest,
    model: LoadedModel,
    path: Path,
    on_step: OnStep = None,
    image_folder: Path | None = None,
    reference: NDArray[np.uint8] | None = None,
    provenance: Provenance = DEFAULT_PROVENANCE,
    adapters: tuple[ScaledAdapter, ...] = (),
) -> Timings:
    """Write the file of `request`, in its format, to `path`, and its images into `image_folder` if there is one.

    `reference` holds the frames (T, height, width, 3) of `request.reference`, and `adapters` those that it names.

    `on_step(completed steps, total steps)` is called after each denoising step; what it raises ends the work.

    Returns:
        The seconds of each stage.

    Raises:
        ValueError: When the checkpoint does not support the request.
        NotFiniteError: When denoising diverges.
        EncodeError: When the video cannot be encoded.
    """
    started = time.perf_counter()
    latents = make_latents(to_generation(request, model, reference, adapters), model, on_step)
    denoise_s = time.perf_counter() - started
    decode_s, encode_s = write_video_files(
        request,
        latents,
        model.checkpoint.vae,
        path,
        image_folder,
        reference,
        provenance=provenance,
        checkpoint=model.fingerprint,
    )
    return Timings(denoise_s=denoise_s, decode_s=decode_s, encode_s=encode_s)


def make_latents(generation: Generation, model: LoadedModel, on_step: OnStep = None) -> torch.Tensor:
    """Denoise `generation` to latents (1, T, C, H, W), float32 on the model's device.

    Raises `ValueError` for a generation that the checkpoint does not support, and `NotFiniteError`.
    """
    checkpoint = model.checkpoint
    latents = denoise(checkpoint.transformer, checkpoint.schedule, generation, on_step)
    if not latents.isfinite().all():
        raise NotFiniteError(generation.num_inference_steps, generation.sampler, generation.guidance_scale)
    return latents


def to_generation(
    request: VideoRequest,
    model: LoadedModel,
    reference: NDArray[np.uint8] | None = None,
    adapters: tuple[ScaledAdapter, ...] = (),
) -> Generation:
    """Translate a request for its model. `reference` holds the frames (T, height, width, 3) of `request.reference`.

    `adapters` are those that the request names, loaded.

    Raises `ValueError` when the checkpoint does not support the request, or the frames do not fit it.
    """
    checkpoint = model.checkpoint
    known, source = encode_reference(request, reference, checkpoint.vae)
    guided = model.card.is_guided(request.guidance_scale)
    clean = request.clean_caption
    condition = checkpoint.condition(request.prompt, request.class_label, clean_caption=clean)
    negative = checkpoint.negative(request.negative_prompt or "", condition, clean_caption=clean) if guided else None
    return Generation(
        seed=request.seed,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale if guided else 1.0,
        sampler=request.sampler,
        num_frames=request.generated_frames,
        condition=condition,
        negative=negative,
        known=known,
        source=source,
        adapters=adapters,
        plan=request.speed_plan,
    )


def encode_reference(
    request: VideoRequest, frames: NDArray[np.uint8] | None, vae: VideoDecoder
) -> tuple[KnownFrames | None, Source | None]:
    """Encode the frames of `request.reference`: as known frames of the video, or as the source of an edit.

    Raises:
        ValueError: When the frames are missing, or are not fewer than those of the video.
    """
    reference = request.reference
    if reference is None:
        return None, None
    if frames is None:
        raise ValueError(
            f"the request has a reference of {reference.num_frames} frames: they are needed to generate it"
        )
    if reference.use == "extend":
        frames = frames[len(frames) - reference.overlap_frames :]
    latents = vae.encode(torch.from_numpy(frames.copy())).cpu()
    if reference.strength is not None:
        return None, Source(latents, reference.strength)
    starts = {"last": [-len(frames)], "all": [0, -1]}.get(reference.use, [0])
    return _known(latents, starts, request.generated_frames), None


def _known(latents: torch.Tensor, starts: list[int], num_frames: int) -> KnownFrames:
    """Known frames of a video of `num_frames`: the latents (1, t, C, H, W) from each of `starts` on."""
    count = latents.shape[1]
    if count * len(starts) >= num_frames:
        raise ValueError(f"got {count} reference frames: a video of {num_frames} frames takes fewer")
    known = latents.new_zeros(1, num_frames, *latents.shape[2:])
    is_known = torch.zeros(1, num_frames, dtype=torch.bool)
    for start in starts:
        place = range(num_frames)[start:][:count]
        known[:, place] = latents
        is_known[:, place] = True
    return KnownFrames(known, is_known)
