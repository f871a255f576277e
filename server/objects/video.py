"""The video object, its lists and events, and how a record becomes one."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, Field
from redis import Redis

from jobs.admission.eta import Forecast, forecast
from jobs.speed_plans import Speed
from jobs.videos.record import (
    AdapterUse,
    OutputFormat,
    OutputQuality,
    Priority,
    PromptEnhancement,
    ReferenceUse,
    Status,
    Timings,
    VideoError,
    VideoRecord,
)

_ETA_DESCRIPTION = "Estimated seconds until the video is completed; null while no worker has measured its speed"


class VideoTimings(Timings):
    """Seconds spent in each stage; null for a stage that has not ended."""

    queue_s: float | None = Field(description="Seconds from created to started")


class VideoReference(BaseModel):
    """The image or video that a video starts from."""

    use: ReferenceUse = Field(description="The known frames, or what was done with the source")
    num_frames: int = Field(description="Frames that were taken from it")
    fit: Literal["crop"] = Field(default="crop", description="Resized to cover `size`, then cropped around the centre")


class Video(BaseModel):
    """The video object of the OpenAI API with additional fields. Times are Unix seconds."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int = Field(ge=0, le=100, description="Percent; 100 once the file can be downloaded")
    created_at: int
    started_at: int | None
    completed_at: int | None = Field(description="When the video completed or failed")
    expires_at: int | None = Field(description="When the file is deleted; null: it is kept until you delete it")
    prompt: str | None = Field(description="The prompt that the model sees")
    original_prompt: str | None = Field(description="Your prompt, if an enhancer rewrote it")
    prompt_enhancement: PromptEnhancement | None = Field(
        description="`enhanced`, or `failed`: the enhancer gave no prompt, and the model sees yours"
    )
    negative_prompt: str | None
    clean_caption: bool = Field(description="Whether the prompts are cleaned of HTML, URLs and odd punctuation")
    class_label: int | None
    class_name: str | None
    size: str = Field(description="`WxH` in pixels", examples=["64x64"])
    seconds: str = Field(description="`num_frames` / `fps`", examples=["2"])
    num_frames: int
    fps: int
    seed: int
    num_inference_steps: int
    sampler: str
    guidance_scale: float
    adapters: list[AdapterUse] = Field(description="The adapters of the video, with their scales")
    speed: Speed
    rows_computed: int | None = Field(
        description="Rows of the model's batch over all steps; null for videos of version 0.1"
    )
    rows_saved: int | None = Field(description="Rows that the speed plan leaves out")
    priority: Priority
    queue_position: int | None = Field(description="1 is next; null once the video has started")
    eta_seconds: float | None = Field(description=_ETA_DESCRIPTION)
    timings: VideoTimings
    stage_durations: dict[str, float] | None = Field(
        description="Seconds by stage once the video is completed, as some servers of this API report them"
    )
    peak_memory_mb: float | None = Field(
        description="Peak memory of the worker in MiB when it completed the video: CUDA memory of its tensors, or the "
        "resident memory of its process on the CPU"
    )
    error: VideoError | None
    remixed_from_video_id: str | None
    source_video_id: str | None = Field(description="The video that this one starts from; null for an uploaded file")
    reference: VideoReference | None = Field(description="The image or video that this one starts from")
    strength: float | None = Field(description="Of an edit: the share of the denoising steps that was done")
    overlap_frames: int | None = Field(description="Of an extension: last frames of the source that the model saw")
    windows: int = Field(description="Overlapping windows in which the frames are made; 1 up to the trained length")
    frame_rate_multiplier: Literal[1, 2, 4] = Field(
        description="The file has so many times `fps` frames per second, by ffmpeg's minterpolate"
    )
    output_format: OutputFormat = Field(description="Format of the file; `png` of several frames is a ZIP of PNGs")
    output_quality: OutputQuality
    metadata: dict[str, str]


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, videos: list[Video], has_more: bool = False) -> Self:
        first, last = (videos[0].id, videos[-1].id) if videos else (None, None)
        return cls(data=videos, first_id=first, last_id=last, has_more=has_more)


class DeletedVideo(BaseModel):
    """Confirms a deletion."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class VideoProgress(BaseModel):
    """The data of a `progress` event."""

    id: str
    object: Literal["video.progress"] = "video.progress"
    status: Literal["in_progress"] = "in_progress"
    progress: int = Field(ge=0, le=99)
    step: int = Field(description="Completed denoising steps")
    steps: int = Field(description="All denoising steps")
    eta_seconds: float | None = Field(description=_ETA_DESCRIPTION)
    preview: str | None = Field(default=None, description="A small picture of the expected result, as a data URL")


class VideoRemoved(BaseModel):
    """The data of the `failed` event of a video that was deleted."""

    id: str
    object: Literal["video"] = "video"
    status: Literal["failed"] = "failed"
    error: VideoError = VideoError(code="deleted", message="the video was deleted")


def current_video(redis: Redis, record: VideoRecord) -> Video:
    """The video object of a record, with its queue position and ETA as they are now."""
    return current_videos(redis, [record])[0]


def current_videos(redis: Redis, records: Sequence[VideoRecord]) -> list[Video]:
    """The video objects of several records, with their queue positions and ETAs as they are now."""
    return to_videos(records, forecast(redis, records))


def to_videos(records: Sequence[VideoRecord], forecasts: Mapping[str, Forecast]) -> list[Video]:
    """The video objects of records, given the forecasts of those that have not ended, by id."""
    return [to_video(record, forecasts.get(record.id, Forecast())) for record in records]


def to_video(record: VideoRecord, forecast: Forecast) -> Video:
    """The video object of a record."""
    request = record.request
    shared = request.model_dump(exclude={"height", "width", "reference"})
    reference = request.reference
    return Video(
        **shared,
        id=record.id,
        status=record.status,
        progress=record.progress,
        created_at=int(record.created_at),
        started_at=_whole(record.started_at),
        completed_at=_whole(record.completed_at),
        expires_at=_whole(record.expires_at),
        size=f"{request.width}x{request.height}",
        seconds=f"{request.seconds:g}",
        queue_position=forecast.queue_position,
        eta_seconds=forecast.eta_seconds,
        timings=timings(record),
        stage_durations=stage_durations(record) if record.status == "completed" else None,
        peak_memory_mb=None if record.peak_memory_bytes is None else round(record.peak_memory_bytes / 2**20, 1),
        error=record.error,
        remixed_from_video_id=record.remixed_from_video_id,
        source_video_id=reference.source_video_id if reference else None,
        reference=VideoReference(use=reference.use, num_frames=reference.num_frames) if reference else None,
        strength=reference.strength if reference else None,
        overlap_frames=reference.overlap_frames or None if reference else None,
    )


def timings(record: VideoRecord) -> VideoTimings:
    """How long each stage of a video took."""
    queue_s = None if record.started_at is None else round(record.started_at - record.created_at, 3)
    return VideoTimings(queue_s=queue_s, **record.timings.model_dump())


def stage_durations(record: VideoRecord) -> dict[str, float]:
    """The seconds of each stage that has ended, by its name."""
    return {name.removesuffix("_s"): seconds for name, seconds in timings(record) if seconds is not None}


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
