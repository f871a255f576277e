"""The objects that clients see, and how a record becomes one."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import BaseModel, Field

from jobs.cards import ModelCard
from jobs.forecast import Forecast
from jobs.records import Priority, Status, Timings, VideoError, VideoRecord


class VideoTimings(Timings):
    queue_s: float | None = Field(description="seconds from accepted to started")


class Video(BaseModel):
    """The video object of the OpenAI API, and more. Times are Unix seconds."""

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int = Field(ge=0, le=100)
    created_at: int
    started_at: int | None
    completed_at: int | None = Field(description="when it completed or failed")
    expires_at: int | None = Field(description="until when the file can be downloaded; null: until it is deleted")
    prompt: str | None
    negative_prompt: str | None
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
    priority: Priority
    queue_position: int | None = Field(description="1 is next; null once started")
    eta_seconds: float | None = Field(description="until it is done, an estimate; null where no worker knows its speed")
    timings: VideoTimings
    error: VideoError | None
    remixed_from_video_id: str | None
    metadata: dict[str, str]


class VideoList(BaseModel):
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
    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class Model(ModelCard):
    """A model card, and who serves it."""

    object: Literal["model"] = "model"
    sizes: list[str] = Field(description="`WxH` in pixels")
    workers_alive: int = Field(description="with 0, videos are accepted and wait")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


def to_videos(records: Sequence[VideoRecord], forecasts: Mapping[str, Forecast]) -> list[Video]:
    return [to_video(record, forecasts.get(record.id, Forecast())) for record in records]


def to_video(record: VideoRecord, forecast: Forecast) -> Video:
    request = record.request
    shared = request.model_dump(exclude={"height", "width"})
    queue_s = None if record.started_at is None else round(record.started_at - record.created_at, 3)
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
        timings=VideoTimings(queue_s=queue_s, **record.timings.model_dump()),
        error=record.error,
        remixed_from_video_id=record.remixed_from_video_id,
    )


def to_model(card: ModelCard, workers_alive: int) -> Model:
    return Model(**card.model_dump(), sizes=[card.size], workers_alive=workers_alive)


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
