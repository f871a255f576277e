"""Download of videos that may still be in progress."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.client.api_client import Client, Video
from cli.client.follow import ProgressLine, follow
from jobs.errors import FrameditError, InvalidRequestError


class VideoFailedError(FrameditError):
    """A video failed on the server."""

    code = "not_made"
    exit_status = 1


def check_output(output: Path) -> None:
    """Raise `InvalidRequestError` if the file cannot be written. Call it before the request."""
    if output.is_dir():
        raise InvalidRequestError(f"{output} is a folder: choose a file in it, such as {output / 'video.mp4'}")
    if not output.parent.is_dir():
        raise InvalidRequestError(
            f"the folder {output.parent} does not exist: create it, or choose another file with -o"
        )


def download_videos(client: Client, video_ids: Sequence[str], output: Path, as_json: bool) -> None:
    """Wait for each video, write its file and print its name. Raises `VideoFailedError` if any of them failed."""
    failures: list[str] = []
    printed: list[dict[str, Any]] = []
    for video_id, path in zip(video_ids, _paths(output, len(video_ids)), strict=True):
        video = _wait(client, video_id)
        if video["status"] == "completed":
            path = client.download(video_id, path)
            printed.append({**video, "file": str(path)})
            if not as_json:
                print(_describe(video, path), flush=True)
        else:
            printed.append(video)
            failures.append(f"{video_id} failed ({video['error']['code']}): {video['error']['message']}")
    if as_json:
        print(json.dumps(printed[0] if len(printed) == 1 else printed, indent=2, ensure_ascii=False))
    if failures:
        raise VideoFailedError("; ".join(failures))


def _wait(client: Client, video_id: str) -> Video:
    line = ProgressLine(video_id)
    state: dict[str, Any] = {}
    try:
        for state in follow(client, video_id):
            line.show(state)
    except KeyboardInterrupt:
        line.end()
        print(
            f"the video goes on: `framedit fetch {video_id}` downloads it, `framedit cancel {video_id}` cancels it",
            file=sys.stderr,
        )
        raise
    line.end()
    return state


def _paths(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


def _describe(video: Video, path: Path) -> str:
    frames = "image" if video["num_frames"] == 1 else f"{video['num_frames']} frames at {video['fps']} fps"
    return f"{path}  {frames}, {video['model']}, seed {video['seed']}"
