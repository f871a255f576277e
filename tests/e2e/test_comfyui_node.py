"""The ComfyUI node without ComfyUI: its functions against a real server."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.e2e.conftest import REPOSITORY, Serve
from tests.mp4 import decode_mp4
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def node() -> ModuleType:
    """The module as ComfyUI loads it: from its file."""
    spec = importlib.util.spec_from_file_location("comfyui_framedit", REPOSITORY / "examples" / "comfyui_framedit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def defaults(node_class: Any) -> dict[str, Any]:
    """The values that ComfyUI passes for a node that nobody has changed."""
    inputs = node_class.INPUT_TYPES()
    return {name: options["default"] for part in inputs.values() for name, (_, options) in part.items()}


def test_the_node_returns_the_frames_of_the_video(node: ModuleType, served: Serve, tmp_path: Path) -> None:
    node_class = node.NODE_CLASS_MAPPINGS["FrameDiTVideo"]
    changed = {"prompt": "", "server": served.url, "class_label": "right", "seed": 7, "num_inference_steps": 2}
    result = getattr(node_class(), node_class.FUNCTION)(**defaults(node_class) | changed)
    assert len(result) == len(node_class.RETURN_TYPES)
    frames, fps = result
    (video,) = served.http.get("/v1/videos").json()["data"]
    assert (video["seed"], video["class_name"], video["num_inference_steps"]) == (7, "right", 2)
    file = tmp_path / "video.mp4"
    file.write_bytes(served.http.get(f"/v1/videos/{video['id']}/content").content)
    served.http.delete(f"/v1/videos/{video['id']}")
    expected = decode_mp4(file)
    assert (frames.dtype, tuple(frames.shape), fps) == (torch.float32, expected.frames.shape, expected.fps)
    assert 0 <= float(frames.min()) <= float(frames.max()) <= 1
    # Two decoders may convert colours with a different rounding.
    assert np.abs(frames.numpy() * 255 - expected.frames).mean() < 3


def test_an_error_is_raised_with_the_servers_message(node: ModuleType, served: Serve) -> None:
    with pytest.raises(RuntimeError, match="class_label is 'down'"):
        node.submit(served.url, {"class_label": "down"})
    with pytest.raises(RuntimeError, match=r"at http://127\.0\.0\.1:1 does not answer"):
        node.submit("http://127.0.0.1:1", {})
    with pytest.raises(RuntimeError, match="there is no video"):
        node.download(served.url, "video_1")


def test_an_interruption_cancels_the_video(node: ModuleType, served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    class InterruptedByUserError(Exception):
        pass

    def interrupt() -> None:
        raise InterruptedByUserError

    monkeypatch.setattr(node, "throw_exception_if_processing_interrupted", interrupt)
    video = node.submit(served.url, {"class_label": "left", "num_inference_steps": 1000})
    with pytest.raises(InterruptedByUserError):
        node.wait(served.url, video)
    ended = wait_for(lambda: (found := served.get(video["id"]))["status"] == "failed" and found, "the cancelled video")
    assert ended["error"]["code"] == "cancelled"
    with pytest.raises(RuntimeError, match="the video failed: "):
        node.wait(served.url, ended)
    served.http.delete(f"/v1/videos/{video['id']}")
