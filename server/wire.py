"""The wire format of requests: the bodies that clients send. `server/objects/` is what they receive."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from jobs.adapter_cards import MAX_ADAPTERS, MAX_SCALE
from jobs.speed_plans import Speed
from jobs.videos.record import (
    MAX_SEED,
    OutputFormat,
    OutputQuality,
    Priority,
)

MAX_VIDEOS = 10
MAX_FPS = 60

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
