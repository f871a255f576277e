"""Records for tests."""

import time
from typing import Any

from jobs.videos.record import VideoRecord, VideoRequest, new_records


def make_request(**changes: Any) -> VideoRequest:
    fields: dict[str, Any] = {
        "model": "tiny-text",
        "prompt": "a red circle",
        "seed": 7,
        "num_frames": 16,
        "fps": 8,
        "height": 64,
        "width": 64,
        "num_inference_steps": 20,
        "guidance_scale": 7.5,
        "sampler": "ddim",
    }
    return VideoRequest.model_validate(fields | changes)


def make_record(**changes: Any) -> VideoRecord:
    return new_records(make_request(**changes), time.time())[0]
