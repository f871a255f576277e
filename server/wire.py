"""The wire format: the bodies that clients send, and the objects that they receive."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from redis import Redis

from jobs.adapter_cards import MAX_ADAPTERS, MAX_SCALE, AdapterCard
from jobs.admission.eta import Forecast, forecast
from jobs.admission.worker_load import ModelState
from jobs.cards import ModelCard
from jobs.speed_plans import SPEEDS, Speed
from jobs.videos.record import (
    MAX_SEED,
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

MAX_VIDEOS = 10
MAX_FPS = 60
ETA_DESCRIPTION = "Estimated seconds until the video is completed; null while no worker has measured its speed"

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


def _from_json(value: object) -> object:
    """A form field may hold an object as JSON text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


Metadata = Annotated[dict[MetadataKey, MetadataValue], BeforeValidator(_from_json)]

REFERENCE_DESCRIPTION = (
    "An image (PNG, JPEG, WebP, GIF) or a video (MP4, WebM, GIF): a file of a form, a data URL as `image_url`, or the "
    "`id` of one of your videos"
)


class Body(BaseModel):
    """The fields of a request body."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ReferenceInput(Body):
    """An image or a video that is not sent as a file: one of the fields."""

    id: str | None = Field(default=None, description="The id of a completed video of yours")
    image_url: str | None = Field(
        default=None, description="`data:image/png;base64,...` or another kind that is allowed"
    )


class AdapterInput(Body):
    """An adapter of the model."""

    name: str = Field(description="One of the model's `adapters`", max_length=100)
    scale: float | None = Field(
        default=None,
        ge=-MAX_SCALE,
        le=MAX_SCALE,
        description="Multiplies the adapter; by default the scale of its card",
    )


class VideoSettings(Body):
    """The fields that all requests for a video share."""

    model: str | None = Field(
        default=None,
        description="Model id; by default the only model that the other fields fit, or the server's default model",
    )
    prompt: str | None = Field(
        default=None, description="What the video shows; required by text models", examples=["a red circle"]
    )
    enhance_prompt: bool = Field(
        default=False, description="Let the server's language model rewrite the prompt, where it has one"
    )
    class_label: int | str | None = Field(default=None, description="Class index or name; required by class models")
    negative_prompt: str | None = Field(default=None, description="What the video must not show; text models only")
    clean_caption: bool | None = Field(
        default=None, description="Clean the prompts of HTML, URLs and odd punctuation, as Latte does; text models only"
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Random by default")
    num_inference_steps: int | None = Field(default=None, ge=1, description="Denoising steps")
    guidance_scale: float | None = Field(default=None, ge=0, description="Classifier-free guidance; 1 turns it off")
    sampler: str | None = Field(default=None, description="One of the model's `samplers`")
    adapters: Annotated[list[AdapterInput], BeforeValidator(_from_json)] = Field(
        default=[],
        max_length=MAX_ADAPTERS,
        description="LoRA adapters of the model, which change this video alone; in a form as JSON text",
        examples=[[{"name": "demo-sparkle", "scale": 1.0}]],
    )
    speed: Speed = Field(
        default="exact",
        description="`balanced` and `fast` compute fewer rows, by the model's `speed_plans`, at a measured loss",
    )
    priority: Priority = Field(default="normal", description="Videos of higher priority run first within a model")
    metadata: Metadata = Field(default={}, max_length=16, description="Your own key-value pairs")
    user: MetadataValue | None = Field(default=None, description="Your id of an end user; kept in `metadata`")
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Receives `video.completed` or `video.failed` as a POST, signed as Standard Webhooks specifies",
        examples=["https://example.com/videos"],
    )
    frame_rate_multiplier: Annotated[Literal[1, 2, 4], BeforeValidator(_from_json)] = Field(
        default=1,
        description="Multiplies the frame rate of the file: ffmpeg's minterpolate adds frames by motion compensation",
    )
    output_format: OutputFormat | None = Field(
        default=None,
        description="Format of the file, by default `mp4`; `png` is a ZIP of lossless frames. One frame is a PNG image",
    )
    output_quality: OutputQuality | None = Field(
        default=None, description="Quality of the file, by default `high`; `png` is always `maximum`"
    )


class CreateVideo(VideoSettings):
    """A new video. Fields that you leave out take the model's defaults, which `GET /v1/models/{id}` shows."""

    num_frames: int | None = Field(
        default=None, ge=1, description="Length of the video in frames; one frame is a PNG image"
    )
    seconds: str | float | None = Field(default=None, description="Alternative to `num_frames`: seconds x `fps`")
    fps: int | None = Field(default=None, ge=1, le=MAX_FPS, description="Frames per second of the file")
    size: str | None = Field(default=None, description="`WxH`, one of the model's `sizes`", examples=["64x64"])
    width: int | None = Field(default=None, ge=1, description="Alternative to `size`, with `height`")
    height: int | None = Field(default=None, ge=1, description="Alternative to `size`, with `width`")
    n: int = Field(default=1, ge=1, le=MAX_VIDEOS, description="Number of videos; their seeds count up from `seed`")
    input_reference: ReferenceInput | None = Field(default=None, description=REFERENCE_DESCRIPTION)
    reference_frame: Literal["first", "last", "all"] = Field(
        default="first", description="Where an image stands: as the first frame, as the last one, or as both (`all`)"
    )


class CreateOneVideo(CreateVideo):
    """The fields of `POST /v1/videos`, for one video."""

    n: int = Field(default=1, ge=1, le=1, description="Number of videos: 1")


class EditVideo(VideoSettings):
    """A new video from an existing one. Fields that you leave out are those of the source, or the model's defaults."""

    video: ReferenceInput = Field(description=REFERENCE_DESCRIPTION)
    strength: float = Field(
        default=0.6, gt=0, le=1, description="How much may change: the share of the denoising steps that is done"
    )


class ExtendVideo(VideoSettings):
    """The continuation of a video. Fields that you leave out are those of the source, or the model's defaults."""

    video: ReferenceInput = Field(description=REFERENCE_DESCRIPTION)
    num_frames: int | None = Field(default=None, ge=1, description="Length of the continuation in frames")
    seconds: str | float | None = Field(default=None, description="Alternative to `num_frames`")
    overlap_frames: int | None = Field(
        default=None,
        ge=1,
        description="Last frames of the source that the model sees; half of its trained length by default",
    )


class RemixVideo(Body):
    """What a remix changes: the prompt, the seed or both."""

    prompt: str | None = Field(default=None, description="What the new video shows; by default the same")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="By default the same")


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
    eta_seconds: float | None = Field(description=ETA_DESCRIPTION)
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
    eta_seconds: float | None = Field(description=ETA_DESCRIPTION)
    preview: str | None = Field(default=None, description="A small picture of the expected result, as a data URL")


class VideoRemoved(BaseModel):
    """The data of the `failed` event of a video that was deleted."""

    id: str
    object: Literal["video"] = "video"
    status: Literal["failed"] = "failed"
    error: VideoError = VideoError(code="deleted", message="the video was deleted")


class Model(ModelCard):
    """A model card with the number of workers that serve it."""

    object: Literal["model"] = "model"
    sizes: list[str] = Field(description="`WxH` in pixels")
    speeds: list[Speed] = Field(description="Allowed values of `speed`, each with the samplers of its `speed_plans`")
    workers_alive: int = Field(description="With 0, videos are accepted and stay queued")
    workers_loaded: int = Field(description="Workers that have the model in memory")
    workers_loading: int = Field(description="Workers that are loading the model")
    pinned: bool = Field(description="Whether workers keep the model in memory")


class Adapter(BaseModel):
    """An adapter that a request can name, or one that a worker has refused."""

    name: str
    object: Literal["adapter"] = "adapter"
    model: str | None = Field(description="The model that it changes; null for a refused adapter")
    status: Literal["available", "refused"]
    description: str = ""
    scale: float = Field(default=1.0, description="The default scale of a request")
    trigger_words: list[str] = Field(default=[], description="Words of a prompt with which it was trained")
    error: str | None = Field(default=None, description="Why it is refused")

    @classmethod
    def of(cls, card: AdapterCard) -> Self:
        return cls(status="available", **card.model_dump())

    @classmethod
    def refused(cls, name: str, error: str) -> Self:
        return cls(name=name, model=None, status="refused", error=error)


class AdapterList(BaseModel):
    """All adapters."""

    object: Literal["list"] = "list"
    data: list[Adapter]


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


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


def to_model(card: ModelCard, workers_alive: int, states: Sequence[ModelState | None], *, pinned: bool) -> Model:
    """The model object of a card. `states` are those of the model on each worker."""
    return Model(
        **card.model_dump(),
        sizes=[card.size],
        speeds=[each for each in SPEEDS if each == "exact" or any(plan.speed == each for plan in card.speed_plans)],
        workers_alive=workers_alive,
        workers_loaded=states.count("loaded"),
        workers_loading=states.count("loading"),
        pinned=pinned,
    )


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
