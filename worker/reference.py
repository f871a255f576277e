"""The reference of a request: its frames from the artifact store, and their latents for the generation.

Shape legend: T frames, C H W latent; frames are (T, height, width, 3) uint8.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.errors import ArtifactStoreError
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import VideoRecord, VideoRequest
from models.generate import Source
from models.sampling.known_frames import KnownFrames
from models.vae import VideoDecoder


def read_reference(
    artifacts: ArtifactStore, record: VideoRecord, give_up: Callable[[], bool] = lambda: False
) -> NDArray[np.uint8] | None:
    """Return the frames of a video's reference, None when it has none. `give_up` is that of `ArtifactStore.read`.

    Raises:
        ArtifactStoreError: When they cannot be read, or are damaged.
    """
    request = record.request
    if request.reference is None:
        return None
    frames = np.frombuffer(artifacts.read(record.id, "reference", give_up), np.uint8)
    shape = (request.reference.num_frames, request.height, request.width, 3)
    if frames.size != np.prod(shape):
        raise ArtifactStoreError(f"the reference of {record.id} is damaged: it has {frames.size} bytes")
    return frames.reshape(shape)


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


def _known(latents: Tensor, starts: list[int], num_frames: int) -> KnownFrames:
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


def blend_reference(
    request: VideoRequest, reference: NDArray[np.uint8] | None, generated: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Put the frames of the reference in their places, and the source of an extension before what continues it.

    Where both are there, they fade from one to the other: the VAE does not give back the reference's pixels exactly,
    and a hard cut would show. The frames of an edit stay as they were generated.
    """
    about = request.reference
    if about is None or reference is None or about.use == "edit":
        return generated
    if about.use == "extend":
        cut, overlap = len(reference) - about.overlap_frames, about.overlap_frames
        return np.concatenate(
            [reference[:cut], _fade(reference[cut:], generated[:overlap]), generated[overlap:]], dtype=np.uint8
        )
    count, video = len(reference), generated.copy()
    if about.use in ("first", "all"):
        video[:count] = _fade(reference, generated[:count])
    if about.use in ("last", "all"):
        video[-count:] = _fade(generated[-count:], reference)
    return video


def _fade(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(T, height, width, 3): from frames of `before` to frames of `after`."""
    share = (np.arange(1, len(before) + 1, dtype=np.float32) / (len(before) + 1))[:, None, None, None]
    return np.rint((1 - share) * before + share * after).astype(np.uint8)
