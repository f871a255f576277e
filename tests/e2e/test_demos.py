"""The two demo checkpoints through the whole system, from a POST to what is to be seen in the decoded MP4.

Colour, shape and direction are measured by `python -m training.evaluate` (see training/README.md), whose table says how
far the demos are; here stands only what they do reliably.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, serving
from tests.mp4 import decode_mp4
from training.vision import read_attributes

CHECKPOINTS = REPOSITORY / "checkpoints"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

REQUESTS: list[tuple[dict[str, Any], dict[str, str]]] = [
    (
        {"model": "demo-text", "prompt": "a large blue square staying still on a gray background", "seed": 2},
        {"color": "blue", "motion": "staying still", "background": "gray"},
    ),
    (
        {"model": "demo-text", "prompt": "a white star spinning on a navy background", "seed": 3},
        {"color": "white", "motion": "spinning", "background": "navy"},
    ),
    ({"model": "demo-class", "class_label": "circle-left", "seed": 0}, {"shape": "circle"}),
]


def test_what_was_asked_for_is_to_be_seen(tmp_path: Path) -> None:
    with serving(tmp_path / "data", CHECKPOINTS) as served:
        videos = [served.post(**request) for request, _ in REQUESTS]
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
