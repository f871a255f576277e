"""The request for a video, and the record of what has become of it."""

import re
import secrets
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs import log_context

Status = Literal["queued", "in_progress", "completed", "failed"]
Priority = Literal["high", "normal", "low"]
ArtifactKind = Literal["video", "thumbnail", "spritesheet"]
MAX_SEED = 2**31 - 1

ID_PATTERN = r"video_[0-9a-f]{32}"


class VideoRequest(BaseModel):
    """A request after validation: every default filled in, so that it alone says what the video will be."""

    model_config = ConfigDict(frozen=True)

    model: str
    prompt: str | None = None
    negative_prompt: str | None = None
    class_label: int | None = None
    class_name: str | None = None
    seed: int = Field(ge=0, le=MAX_SEED)
    num_frames: int = Field(ge=1)
    fps: int = Field(ge=1)
    height: int
    width: int
    num_inference_steps: int = Field(ge=1)
    guidance_scale: float
    sampler: str
    priority: Priority = "normal"
    metadata: dict[str, str] = {}
    webhook_url: str | None = None

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps


class VideoError(BaseModel):
    """Why a video failed. `code` is for programs, `message` for people."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Timings(BaseModel):
    """Seconds spent in each stage of the work."""

    model_config = ConfigDict(frozen=True)

    denoise_s: float | None = None
    decode_s: float | None = None
    encode_s: float | None = None


class Artifact(BaseModel):
    """A finished file in the artifact store."""

    model_config = ConfigDict(frozen=True)

    num_bytes: int
    sha256: str


class VideoRecord(BaseModel):
    """A request and its state. Times are Unix seconds; `step` of `steps` denoising steps are done.

    `owner` is the id of the API key that asked for it, None where the server runs without keys. `request_id` is that of
    the HTTP request, which the logs of server and worker name, `traceparent` the place of the request in its trace.
    `cost` is in the unit of `jobs/cost.py`. `alone`: a worker died at it and at others together, so it is made by
    itself, which tells whether it was the one.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    request: VideoRequest
    status: Status = "queued"
    created_at: float
    remixed_from_video_id: str | None = None
    owner: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    cost: int = 0
    alone: bool = False

    step: int = 0
    steps: int = 0
    progress: int = 0
    worker: str | None = None
    attempts: int = 0

    started_at: float | None = None
    completed_at: float | None = None
    expires_at: float | None = None
    error: VideoError | None = None
    timings: Timings = Timings()
    artifacts: dict[ArtifactKind, Artifact] = {}


def new_video_id(created_at: float, index: int = 0) -> str:
    """`video_` and 32 hexadecimal digits: 14 of the time in microseconds, 18 random.

    Ids sort by age, so that a list can go on after an id even when that video has been deleted. `index` is the place
    among videos asked for at once, which is a microsecond each: the sum of two floats would round some of it away.
    """
    return f"video_{int(created_at * 1e6) + index:014x}{secrets.token_hex(9)}"


def is_video_id(text: str) -> bool:
    return re.fullmatch(ID_PATTERN, text) is not None


def new_seed() -> int:
    return secrets.randbelow(MAX_SEED + 1)


def new_records(
    request: VideoRequest,
    created_at: float,
    count: int = 1,
    remixed_from: str | None = None,
    owner: str | None = None,
    cost: int = 0,
) -> list[VideoRecord]:
    """`count` records of the same request, seeds counting up (and round) from the request's; `cost` is that of each.

    They keep the id and the trace of the HTTP request that is being served (`log_context`).
    """
    about = log_context.current()
    return [
        VideoRecord(
            id=new_video_id(created_at, i),
            request=request.model_copy(update={"seed": (request.seed + i) % (MAX_SEED + 1)}),
            created_at=created_at,
            steps=request.num_inference_steps,
            remixed_from_video_id=remixed_from,
            owner=owner,
            request_id=about.get("request_id"),
            traceparent=about.get("traceparent"),
            cost=cost,
        )
        for i in range(count)
    ]
