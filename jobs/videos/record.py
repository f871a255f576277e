"""The request for a video, and the record of the request and its state."""

import re
import secrets
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from jobs.adapter_cards import AdapterName, AdapterScale
from jobs.speed_plans import Speed
from jobs.telemetry import log_context

Status = Literal["queued", "in_progress", "completed", "failed"]
Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)
OutputFormat = Literal["mp4", "webm", "gif", "webp", "png"]
OutputQuality = Literal["low", "medium", "high", "maximum"]
# What a client asks for. "video" is the result, of whatever format; "frames" are those of the format png.
Variant = Literal["video", "frames", "thumbnail", "spritesheet"]
ArtifactKind = Literal["video", "webm", "gif", "webp", "frames", "image", "thumbnail", "spritesheet"]
# The kind of the result of several frames. "video" is the MP4.
RESULT_KINDS: dict[OutputFormat, ArtifactKind] = {
    "mp4": "video",
    "webm": "webm",
    "gif": "gif",
    "webp": "webp",
    "png": "frames",
}
# By the suffix of a file, as the commands and the Python interface choose a format.
FORMATS: dict[str, OutputFormat] = {
    ".mp4": "mp4",
    ".webm": "webm",
    ".gif": "gif",
    ".webp": "webp",
    ".png": "png",
    ".zip": "png",
}
ReferenceUse = Literal["first", "last", "all", "edit", "extend"]
# "failed": the video has the prompt of the client.
PromptEnhancement = Literal["enhanced", "failed"]
MAX_SEED = 2**31 - 1

ID_PATTERN = r"video_[0-9a-f]{32}"


class Reference(BaseModel):
    """The frames that a request starts from. The artifact store holds them as raw RGB of the video's size.

    Attributes:
        use: `first` or `last` frames, the first and the last frame (`all`), a video to `edit`, or to `extend`.
        source_video_id: The video that the frames are from; None for an uploaded file.
        strength: For an edit, the share of the denoising steps that is done.
        overlap_frames: For an extension, how many of the last source frames the model continues.
    """

    model_config = ConfigDict(frozen=True)

    use: ReferenceUse
    num_frames: int = Field(ge=1)
    source_video_id: str | None = None
    strength: float | None = Field(default=None, gt=0, le=1)
    overlap_frames: int = Field(default=0, ge=0)


class AdapterUse(BaseModel):
    """An adapter of a request, and what its update is multiplied by."""

    model_config = ConfigDict(frozen=True)

    name: AdapterName
    scale: AdapterScale


class VideoRequest(BaseModel):
    """A request after validation. Every default is filled in: the request alone determines the video.

    Attributes:
        original_prompt: What the client wrote, where `prompt` is what an enhancer made of it.
        speed_plan: The rows of a window at each step (`jobs/speed_plans.py`). None computes all of them.
        rows_computed: Rows of the model's batch in all; None for a request of version 0.1.
        rows_saved: Rows that the speed plan leaves out.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    prompt: str | None = None
    original_prompt: str | None = None
    prompt_enhancement: PromptEnhancement | None = None
    negative_prompt: str | None = None
    clean_caption: bool = False
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
    frame_rate_multiplier: Literal[1, 2, 4] = 1
    output_format: OutputFormat = "mp4"
    output_quality: OutputQuality = "high"
    windows: int = 1
    speed: Speed = "exact"
    speed_plan: str | None = None
    rows_computed: int | None = None
    rows_saved: int | None = None
    reference: Reference | None = None
    adapters: list[AdapterUse] = []

    @property
    def generated_frames(self) -> int:
        """Frames of the latents. An extension generates its overlap with the source, and the continuation."""
        if self.reference is None or self.reference.use != "extend":
            return self.num_frames
        return self.num_frames - self.reference.num_frames + self.reference.overlap_frames

    @property
    def num_steps(self) -> int:
        """The denoising steps that are done; an edit skips the first ones."""
        if self.reference is None or self.reference.strength is None:
            return self.num_inference_steps
        skipped = int((1 - self.reference.strength) * self.num_inference_steps)
        return max(1, self.num_inference_steps - skipped)

    def remaining_share(self, step: int) -> float:
        """The share of the cost that is left after `step` steps."""
        if self.speed_plan is None:
            return 1 - step / max(1, self.num_steps)
        rows = [int(digit) for digit in self.speed_plan]
        return sum(rows[step:]) / sum(rows)

    @property
    def seconds(self) -> float:
        return self.num_frames / self.fps

    @property
    def result_kind(self) -> ArtifactKind:
        """The file of the result: one frame is an image."""
        return "image" if self.num_frames == 1 else RESULT_KINDS[self.output_format]


class VideoError(BaseModel):
    """The reason why a video failed: `code` for programs, `message` for people."""

    model_config = ConfigDict(frozen=True)

    code: str
    message: str


class Timings(BaseModel):
    """Seconds spent in each stage."""

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
    """A request and its state. Times are Unix seconds.

    Attributes:
        owner: Id of the API key that created the video, None on a server without keys.
        request_id: Id of the HTTP request, which the logs of server and worker show.
        traceparent: The HTTP request's span, in W3C Trace Context.
        cost: In the unit of `jobs/admission/cost.py`.
        alone: Whether the video is in quarantine, because a worker died in a pass with it.
        quarantine: The group of the quarantine: videos of one group share passes with no others. Version 0.1 knows no
            groups; each of its videos in quarantine is a group of its own.
        deaths: Workers that died in a pass with this video.
        step: Denoising steps done, of `steps`.
        attempts: Starts that count against `max_attempts`.
        peak_memory_bytes: The peak memory of the worker when it completed the video.
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
    quarantine: str | None = None
    deaths: int = 0

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
    peak_memory_bytes: int | None = None
    artifacts: dict[ArtifactKind, Artifact] = {}

    @property
    def quarantine_group(self) -> str | None:
        """The videos that it may share passes with: those of the same group."""
        return (self.quarantine or self.id) if self.alone else None


def new_video_id(created_at: float, index: int = 0) -> str:
    """`video_` and 32 hexadecimal digits: 14 of the time in microseconds, 18 random.

    Ids sort by age, so that a list can continue after an id even when that video was deleted. `index` is the position
    in one request, a microsecond for each video: a sum of floats would round it away.
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
    """Return `count` records of one request. Seeds count up from the request's, modulo their number.

    The records keep the id and the span of the HTTP request in progress (`log_context`). `cost` is that of each.
    """
    about = log_context.current()
    return [
        VideoRecord(
            id=new_video_id(created_at, i),
            request=request.model_copy(update={"seed": (request.seed + i) % (MAX_SEED + 1)}),
            created_at=created_at,
            steps=request.num_steps,
            remixed_from_video_id=remixed_from,
            owner=owner,
            request_id=about.get("request_id"),
            traceparent=about.get("traceparent"),
            cost=cost,
        )
        for i in range(count)
    ]
