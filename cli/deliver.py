"""From videos that are being made to files on this machine."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.client import Client, Video
from cli.follow import ProgressLine, follow
from jobs.errors import FrameditError, InvalidRequestError


class NotMadeError(FrameditError):
    """The server has ended a video without a file."""

    code = "not_made"
    exit_status = 1


def check_output(output: Path) -> None:
    """Before anything is asked for. Raises `InvalidRequestError` where no file can be written."""
    if output.is_dir():
        raise InvalidRequestError(f"{output} is a folder: name a file in it, as {output / 'video.mp4'}")
    if not output.parent.is_dir():
        raise InvalidRequestError(f"the folder {output.parent} does not exist: make it, or name another with -o")


def deliver(client: Client, video_ids: Sequence[str], output: Path, as_json: bool) -> None:
    """Wait for each video, write it, and print what was written. Raises `NotMadeError` when any of them failed."""
    failures: list[str] = []
    printed: list[dict[str, Any]] = []
    for video_id, path in zip(video_ids, _paths(output, len(video_ids)), strict=True):
        video = _wait(client, video_id)
        if video["status"] == "completed":
            client.download(video_id, path)
            printed.append({**video, "file": str(path)})
            if not as_json:
                print(_in_words(video, path), flush=True)
        else:
            printed.append(video)
            failures.append(f"{video_id} failed ({video['error']['code']}): {video['error']['message']}")
    if as_json:
        print(json.dumps(printed[0] if len(printed) == 1 else printed, indent=2, ensure_ascii=False))
    if failures:
        raise NotMadeError("; ".join(failures))


def _wait(client: Client, video_id: str) -> Video:
    line = ProgressLine(video_id)
    state: dict[str, Any] = {}
    try:
        for state in follow(client, video_id):
            line.show(state)
    except KeyboardInterrupt:
        line.end()
        print(
            f"it goes on: `framedit fetch {video_id}` waits for it, `framedit cancel {video_id}` stops it",
            file=sys.stderr,
        )
        raise
    line.end()
    return state


def _paths(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{number}") for number in range(1, count + 1)]


def _in_words(video: Video, path: Path) -> str:
    return f"{path}  {video['num_frames']} frames at {video['fps']} fps, {video['model']}, seed {video['seed']}"
