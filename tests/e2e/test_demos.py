"""The two demo checkpoints through the whole system, from a POST to the content of the decoded MP4.

These are a few fixed seeds. `python -m training.evaluation.evaluate` measures the accuracy; training/README.md has its
table.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, serving
from tests.mp4 import decode_mp4
from training.evaluation.vision import read_attributes

CHECKPOINTS = REPOSITORY / "checkpoints"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

REQUESTS: list[tuple[dict[str, Any], dict[str, str]]] = [
    (
        {"model": "demo-text", "prompt": "a red circle moving right on a black background", "seed": 7},
        {"color": "red", "shape": "circle", "motion": "moving right", "background": "black"},
    ),
    (
        {"model": "demo-text", "prompt": "a yellow circle growing on a brown background", "seed": 1},
        {"color": "yellow", "shape": "circle", "motion": "growing", "background": "brown"},
    ),
    (
        {"model": "demo-text", "prompt": "purple star that slides to the left, on black", "seed": 2},
        {"color": "purple", "shape": "star", "motion": "moving left", "background": "black"},
    ),
    (
        {"model": "demo-text", "prompt": "a large white triangle moving up on a navy background", "seed": 3},
        {"color": "white", "shape": "triangle", "motion": "moving up", "background": "navy", "size": "large"},
    ),
    (
        {
            "model": "demo-text",
            "prompt": "a red circle moving right on a black background",
            "seed": 7,
            "sampler": "ddim",
            "num_inference_steps": 50,
            "speed": "fast",
        },
        {"color": "red", "shape": "circle", "motion": "moving right", "background": "black"},
    ),
    ({"model": "demo-class", "class_label": "square-left", "seed": 4}, {"shape": "square", "motion": "moving left"}),
    ({"model": "demo-class", "class_label": "circle-up", "seed": 5}, {"shape": "circle", "motion": "moving up"}),
    ({"model": "demo-class", "class_label": "star-down", "seed": 6}, {"shape": "star", "motion": "moving down"}),
]


def test_the_video_shows_the_prompt(tmp_path: Path) -> None:
    with serving(tmp_path / "data", CHECKPOINTS) as served:
        videos = [served.post(**{"num_inference_steps": 10, **request}) for request, _ in REQUESTS]
        for video, (request, expected) in zip(videos, REQUESTS, strict=True):
            done = served.wait_until(video["id"], "completed", "failed", timeout_seconds=120)
            assert done["status"] == "completed", done
            path = tmp_path / f"{video['id']}.mp4"
            path.write_bytes(served.http.get(f"/v1/videos/{video['id']}/content").content)
            decoded = decode_mp4(path)
            width, height = map(int, done["size"].split("x"))
            assert decoded.frames.shape == (done["num_frames"], height, width, 3)
            assert decoded.fps == done["fps"]
            seen = read_attributes(decoded.frames)
            assert seen is not None, request
            assert {name: getattr(seen, name) for name in expected} == expected, request
