"""How the frames of a video become a file."""

from dataclasses import dataclass

from jobs.videos.record import OutputQuality
from worker.output.formats.metadata import FileMetadata


@dataclass(frozen=True)
class Encoding:
    """The settings of an encoder.

    Attributes:
        fps: Frames per second of the video, without interpolated frames.
        frame_rate_multiplier: ffmpeg's minterpolate makes so many times as many frames, by motion compensation.
        quality: Each format has its own meaning of the names.
        metadata: Written into the file. None: nothing is written.
    """

    fps: float
    frame_rate_multiplier: int = 1
    quality: OutputQuality = "high"
    metadata: FileMetadata | None = None
