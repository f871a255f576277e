"""The output format and quality of a request: defaults, and what the formats cannot hold."""

from jobs.errors import InvalidRequestError
from jobs.videos.record import OutputFormat, OutputQuality
from server.wire import VideoSettings

# Browsers show frames of GIF and WebP that last less than 20 ms too slowly.
_MAX_ANIMATION_FPS = 50
_ANIMATIONS = ("gif", "webp")


def output_format(body: VideoSettings, num_frames: int, fps: int) -> OutputFormat:
    """The format of a video of `num_frames`; one frame is a PNG.

    :raises InvalidRequestError: for a format that cannot hold the video.
    """
    if num_frames == 1:
        if body.output_format not in (None, "png"):
            raise InvalidRequestError(
                f"output_format is {body.output_format!r}; a video of one frame is an image, which allows png",
                "output_format",
            )
        return "png"
    chosen = body.output_format or "mp4"
    file_fps = fps * body.frame_rate_multiplier
    if chosen in _ANIMATIONS and file_fps > _MAX_ANIMATION_FPS:
        raise InvalidRequestError(
            f"output_format is {chosen!r}; it allows at most {_MAX_ANIMATION_FPS} frames per second, "
            f"and fps times frame_rate_multiplier is {file_fps}",
            "output_format",
        )
    return chosen


def output_quality(body: VideoSettings, chosen: OutputFormat) -> OutputQuality:
    """The quality of a file of the format `chosen`.

    :raises InvalidRequestError: for a lower quality of the lossless PNG.
    """
    if chosen != "png":
        return body.output_quality or "high"
    if body.output_quality not in (None, "maximum"):
        raise InvalidRequestError(
            f"output_quality is {body.output_quality!r}; png is lossless, which allows maximum", "output_quality"
        )
    return "maximum"
