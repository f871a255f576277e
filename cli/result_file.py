"""The suffix of a file, and the output format that it stands for."""

from pathlib import Path

from jobs.errors import InvalidRequestError
from jobs.videos.record import FORMATS, OutputFormat

_SUFFIXES = {
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/png": ".png",
    "application/zip": ".zip",
}


def requested_format(output: Path) -> OutputFormat | None:
    """The format that a file name asks for; None for the default, which is an MP4, or a PNG for one frame.

    :raises InvalidRequestError: for a suffix of no format.
    """
    if not output.suffix:
        return None
    if output.suffix.lower() not in FORMATS:
        raise InvalidRequestError(f"cannot write {output}: the suffix must be one of {', '.join(FORMATS)}")
    chosen = FORMATS[output.suffix.lower()]
    return None if chosen == "mp4" else chosen


def with_suffix_of(output: Path, media_type: str) -> Path:
    """`output` with the suffix of the kind of its content, where it has the suffix of another kind."""
    suffix = _SUFFIXES.get(media_type)
    if suffix is None or output.suffix.lower() not in FORMATS or output.suffix.lower() == suffix:
        return output
    return output.with_suffix(suffix)
