"""From latents to files: decode, encode the result, draw thumbnail and sprite sheet.

Shape legend: T frames, C H W latent.
"""

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from jobs.storage.artifact_store import file_name
from jobs.videos.record import VideoRequest
from models.vae import VideoDecoder
from worker.device import free_cached_memory
from worker.output.formats.encoding import Encoding
from worker.output.formats.writers import WRITERS
from worker.output.passing_faults import Retry
from worker.output.provenance import DEFAULT_PROVENANCE, Provenance
from worker.output.reference_blend import blend_reference
from worker.output.thumbnails import write_spritesheet, write_thumbnail

# For a user who waits at a terminal.
_NO_RETRY = Retry(full_disk_seconds=0.0, write_seconds=0.0)


def write_video_files(
    request: VideoRequest,
    latents: Tensor,
    decoder: VideoDecoder,
    path: Path,
    image_folder: Path | None = None,
    reference: NDArray[np.uint8] | None = None,
    retry: Retry = _NO_RETRY,
    provenance: Provenance = DEFAULT_PROVENANCE,
    checkpoint: str = "",
) -> tuple[float, float]:
    """Write the video of `latents` (1, T, C, H, W) to `path`, and its images into `image_folder` if there is one.

    One frame is written as a lossless PNG, several in the format of the request. `reference` holds the frames of
    `request.reference`, with which the video of an extension begins. `checkpoint` is the model's fingerprint.

    Returns:
        The seconds of decoding and of encoding.

    Raises:
        What `VideoDecoder.decode`, the writers of formats and `Provenance.sign` raise, for faults that can pass only
        after the retries.
    """
    started = time.perf_counter()
    # Decoding shares the device with the denoising steps, so memory may become free.
    failure = f"decoding of {latents.shape[1]} frames ran out of memory"
    frames = retry.run(lambda: decoder.decode(latents), failure, free_cached_memory).numpy()
    decoded = time.perf_counter()
    frames = blend_reference(request, reference, frames)
    metadata = provenance.describe(request, checkpoint)
    encoding = Encoding(request.fps, request.frame_rate_multiplier, request.output_quality, metadata)

    def write() -> None:
        WRITERS[request.result_kind](frames, path, encoding)
        provenance.sign(path, request, metadata)
        if image_folder is not None:
            write_thumbnail(frames, image_folder / file_name("thumbnail"))
            write_spritesheet(frames, image_folder / file_name("spritesheet"))

    retry.run(write, "video files could not be written")
    return decoded - started, time.perf_counter() - decoded
