"""The frames of a reference in the finished video.

Shape legend: T frames; frames are (T, height, width, 3) uint8.
"""

import numpy as np
from numpy.typing import NDArray

from jobs.videos.record import VideoRequest


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
