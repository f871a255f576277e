"""A ComfyUI node that generates a video on a FrameDiT server and returns its frames as IMAGE.

Copy this file into ComfyUI's folder custom_nodes and restart ComfyUI. The node is "FrameDiT video" in the category
"video". It needs only packages that ComfyUI has. It reads the API key from FRAMEDIT_API_KEY in the environment, because
ComfyUI saves the fields of a node in every picture that it writes.
"""

import io
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

import av
import numpy as np
import torch

try:
    from comfy.model_management import throw_exception_if_processing_interrupted
    from comfy.utils import ProgressBar
except ImportError:  # outside ComfyUI
    throw_exception_if_processing_interrupted = None
    ProgressBar = None

SERVER = os.environ.get("FRAMEDIT_SERVER", "http://127.0.0.1:8000")
TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.5


class FrameDiTVideo:
    """The node. Numbers that are -1 and texts that are empty take the model's default."""

    CATEGORY = "video"
    RETURN_TYPES = ("IMAGE", "FLOAT")
    RETURN_NAMES = ("frames", "fps")
    FUNCTION = "generate"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        text = ("STRING", {"default": ""})
        return {
            "required": {
                "prompt": ("STRING", {"multiline": True, "default": "a red circle moving right on a black background"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**31 - 1}),
            },
            "optional": {
                "server": ("STRING", {"default": SERVER}),
                "model": text,
                "class_label": text,
                "negative_prompt": text,
                "num_inference_steps": ("INT", {"default": -1, "min": -1, "max": 1000}),
                "guidance_scale": ("FLOAT", {"default": -1.0, "min": -1.0, "max": 20.0, "step": 0.1}),
                "num_frames": ("INT", {"default": -1, "min": -1, "max": 1024}),
            },
        }

    def generate(
        self, prompt: str, seed: int, server: str = SERVER, **optional: str | float
    ) -> tuple[torch.Tensor, float]:
        """Return the frames (T, H, W, 3) as float32 from 0 to 1, and the frames per second."""
        fields = {name: value for name, value in optional.items() if value not in ("", -1)}
        video = submit(server, {"seed": seed} | ({"prompt": prompt} if prompt else {}) | fields)
        video = wait(server, video)
        return decode(download(server, video["id"])), float(video["fps"])


NODE_CLASS_MAPPINGS = {"FrameDiTVideo": FrameDiTVideo}
NODE_DISPLAY_NAME_MAPPINGS = {"FrameDiTVideo": "FrameDiT video"}


def submit(server: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Create a video. Raises `RuntimeError` with the server's message when it refuses."""
    return dict(json.loads(request(server, "POST", "/v1/videos", fields)))


def wait(server: str, video: dict[str, Any]) -> dict[str, Any]:
    """Poll a video until it is completed. Raises `RuntimeError` when it fails. An interruption cancels it."""
    bar = ProgressBar(100) if ProgressBar else None
    try:
        while video["status"] not in ("completed", "failed"):
            time.sleep(POLL_SECONDS)
            if throw_exception_if_processing_interrupted:
                throw_exception_if_processing_interrupted()
            video = json.loads(request(server, "GET", f"/v1/videos/{video['id']}"))
            if bar:
                bar.update_absolute(video["progress"])
    except BaseException:
        request(server, "POST", f"/v1/videos/{video['id']}/cancel")
        raise
    if video["status"] == "failed":
        raise RuntimeError(f"the video failed: {video['error']['message']}")
    return video


def download(server: str, video_id: str) -> bytes:
    return request(server, "GET", f"/v1/videos/{video_id}/content")


def decode(content: bytes) -> torch.Tensor:
    """The frames of a video file, (T, H, W, 3) float32 from 0 to 1."""
    with av.open(io.BytesIO(content)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).float() / 255


def request(server: str, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    """Send a request and return the body of the answer. Raises `RuntimeError` for an error, with its message."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("FRAMEDIT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    url = server.rstrip("/") + path
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, headers, method=method), timeout=TIMEOUT_SECONDS
        ) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"the FrameDiT server refused the request: {message(error.read())}") from None
    except urllib.error.URLError as error:
        raise RuntimeError(f"the FrameDiT server at {server} does not answer: {error.reason}") from None


def message(body: bytes) -> str:
    """The message of an error, or the start of a body without one."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
