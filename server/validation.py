"""Checks what a client asks for against the model's card, and fills in what it leaves open."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from jobs.cards import ModelCard
from jobs.errors import InvalidRequestError
from jobs.records import MAX_SEED, Priority, VideoRequest, new_seed
from server.body import Fields

MAX_VIDEOS = 10
MAX_FPS = 60
_MAX_SHOWN_CHARACTERS = 100

MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


def _from_json(value: object) -> object:
    """In a form, an object may be written as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


Metadata = Annotated[dict[MetadataKey, MetadataValue], BeforeValidator(_from_json)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CreateVideo(_Body):
    """A new video. What is left out is the model's default, which its card (`GET /v1/models/{id}`) tells."""

    model: str | None = Field(default=None, description="May be left out where there is only one")
    prompt: str | None = Field(
        default=None, description="What to show; needed by text models", examples=["a red circle"]
    )
    class_label: int | str | None = Field(default=None, description="Index or name; needed by class models")
    negative_prompt: str | None = Field(default=None, description="What not to show; text models only")
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="Random when left out")
    num_inference_steps: int | None = Field(default=None, ge=1, description="Denoising steps")
    guidance_scale: float | None = Field(default=None, ge=0, description="Of classifier-free guidance; 1 is none")
    sampler: str | None = Field(default=None, description="One of the card's `samplers`")
    num_frames: int | None = Field(default=None, ge=1, description="How long the video is")
    seconds: str | float | None = Field(default=None, description="Another way to give `num_frames`: seconds x fps")
    fps: int | None = Field(default=None, ge=1, le=MAX_FPS, description="Frames per second of the file")
    size: str | None = Field(default=None, description="`WxH`, one of the card's `sizes`", examples=["64x64"])
    n: int = Field(default=1, ge=1, le=MAX_VIDEOS, description="With more than one, seeds count up from `seed`")
    priority: Priority = Field(default="normal", description="Higher ones of the same model go first")
    metadata: Metadata = Field(default={}, max_length=16, description="Your own key-values")
    webhook_url: str | None = Field(
        default=None,
        max_length=2048,
        description="Where to POST `video.completed` or `video.failed`, signed as Standard Webhooks says",
        examples=["https://example.com/videos"],
    )


class CreateOneVideo(CreateVideo):
    """As for `POST /v1/videos`, one at a time."""

    n: int = Field(default=1, ge=1, le=1)


class RemixVideo(_Body):
    """The same video with another prompt."""

    prompt: str


BodyT = TypeVar("BodyT", bound=_Body)


def parse(body_type: type[BodyT], fields: Fields) -> BodyT:
    """:raises InvalidRequestError: for fields that are unknown, missing or of the wrong type."""
    unknown = [name for name in fields.values if name not in body_type.model_fields]
    if unknown:
        raise InvalidRequestError(
            f"unknown: {_shorten(', '.join(unknown))}; allowed are {', '.join(body_type.model_fields)}",
            param=_shorten(unknown[0]),
            code="unknown_parameter",
        )
    try:
        # JSON has types of its own, which are taken at their word (true is not 1); in a form all is text.
        return body_type.model_validate(fields.values, strict=fields.typed)
    except ValidationError as error:
        raise _explain(error) from None


def resolve(body: CreateVideo, card: ModelCard) -> VideoRequest:
    """The request with every default filled in.

    :raises InvalidRequestError: naming the field, what was got and what this model allows.
    """
    label = _class_label(body, card)
    fps = body.fps or card.fps
    if body.size not in (None, card.size):
        raise _refuse("size", body.size, f"{card.id} makes {card.size}")
    return VideoRequest(
        model=card.id,
        prompt=_prompt(body.prompt, card),
        negative_prompt=_negative_prompt(body.negative_prompt, card),
        class_label=label,
        class_name=None if label is None else (card.class_names or [])[label],
        seed=new_seed() if body.seed is None else body.seed,
        num_frames=_num_frames(body, card, fps),
        fps=fps,
        height=card.height,
        width=card.width,
        num_inference_steps=_at_most(
            "num_inference_steps", body.num_inference_steps or card.num_inference_steps, card.max_inference_steps, card
        ),
        guidance_scale=_at_most(
            "guidance_scale",
            card.guidance_scale if body.guidance_scale is None else body.guidance_scale,
            card.max_guidance_scale,
            card,
        ),
        sampler=_sampler(body.sampler, card),
        priority=body.priority,
        metadata=body.metadata,
        webhook_url=body.webhook_url,
    )


def resolve_remix(body: RemixVideo, request: VideoRequest, card: ModelCard) -> VideoRequest:
    """The same request with another prompt.

    :raises InvalidRequestError: when the model takes no prompt, or not this one.
    """
    if card.conditioning != "text":
        raise _refuse("prompt", body.prompt, f"{card.id} takes no prompt, so its videos cannot be remixed")
    return request.model_copy(update={"prompt": _prompt(body.prompt, card)})


def _prompt(prompt: str | None, card: ModelCard) -> str | None:
    given = (prompt or "").strip()
    if card.conditioning == "text":
        if not given:
            raise InvalidRequestError(f"prompt is missing: say what {card.id} is to show{_example(card)}", "prompt")
        return _short_enough("prompt", given, card)
    if given:
        instead = "give class_label" if card.conditioning == "class" else "leave it out"
        raise _refuse("prompt", given, f"{card.id} takes no prompt; {instead}")
    return None


def _negative_prompt(negative_prompt: str | None, card: ModelCard) -> str | None:
    if card.conditioning == "text":
        given = card.negative_prompt if negative_prompt is None else negative_prompt.strip()
        return _short_enough("negative_prompt", given, card)
    if negative_prompt:
        raise _refuse("negative_prompt", negative_prompt, f"{card.id} takes no prompts; leave it out")
    return None


def _class_label(body: CreateVideo, card: ModelCard) -> int | None:
    label, names = body.class_label, card.class_names or []
    if card.conditioning != "class":
        if label in (None, ""):
            return None
        raise _refuse("class_label", label, f"{card.id} has no classes; leave it out")
    allowed = f"{card.id} has the classes 0..{len(names) - 1}: {', '.join(names)}"
    if label in (None, ""):
        raise InvalidRequestError(f"class_label is missing; {allowed}", "class_label")
    if label in names:
        return names.index(str(label))
    # A form has no numbers, only their digits.
    index = int(label) if isinstance(label, int) or (label.isascii() and label.isdigit() and len(label) < 10) else -1
    if not 0 <= index < len(names):
        raise _refuse("class_label", label, allowed)
    return index


def _num_frames(body: CreateVideo, card: ModelCard, fps: int) -> int:
    from_seconds = None if body.seconds is None else round(_seconds(body.seconds) * fps)
    if from_seconds is not None and body.num_frames not in (None, from_seconds):
        raise _refuse(
            "seconds", body.seconds, f"that is {from_seconds} frames at {fps} fps, but num_frames is {body.num_frames}"
        )
    num_frames = body.num_frames if body.num_frames is not None else from_seconds
    if num_frames is None:
        return card.num_frames
    if not card.min_frames <= num_frames <= card.max_frames:
        allowed = f"{card.id} makes {card.min_frames} to {card.max_frames} frames"
        if body.num_frames is not None:
            raise _refuse("num_frames", num_frames, allowed)
        shortest, longest = (f"{frames / fps:g}" for frames in (card.min_frames, card.max_frames))
        raise _refuse("seconds", body.seconds, f"{allowed}, which at {fps} fps are {shortest} to {longest} seconds")
    return num_frames


def _seconds(seconds: str | float) -> float:
    try:
        value = float(seconds)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise _refuse("seconds", seconds, 'it should be a number above 0, such as "2"')
    return value


def _sampler(sampler: str | None, card: ModelCard) -> str:
    if sampler is not None and sampler not in card.samplers:
        raise _refuse("sampler", sampler, f"{card.id} has {', '.join(card.samplers)}")
    return sampler or card.sampler


Number = TypeVar("Number", int, float)


def _at_most(param: str, value: Number, largest: Number, card: ModelCard) -> Number:
    if value > largest:
        raise _refuse(param, value, f"{card.id} allows at most {largest:g}")
    return value


def _short_enough(param: str, text: str, card: ModelCard) -> str:
    if len(text) > card.max_prompt_characters:
        raise InvalidRequestError(
            f"{param} has {len(text)} characters; {card.id} allows at most {card.max_prompt_characters}", param
        )
    return text


def _example(card: ModelCard) -> str:
    return f", for example {card.examples[0]!r}" if card.examples else ""


def _refuse(param: str, got: object, allowed: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param} is {_show(got)}; {allowed}", param)


def _explain(error: ValidationError) -> InvalidRequestError:
    fault: dict[str, Any] = dict(error.errors(include_url=False)[0])
    param = str(fault["loc"][0])
    if fault["type"] == "missing":
        return InvalidRequestError(f"{param} is missing", param, code="missing_parameter")
    place = _place(fault["loc"])
    message = re.sub(r"^(Input|String|Dictionary) should", "it should", str(fault["msg"]))
    message = message.removesuffix(" after validation, not more")
    if fault["type"] == "string_too_long":
        return InvalidRequestError(f"{place} has {len(fault['input'])} characters; {message}", param)
    return InvalidRequestError(f"{place} is {_show(fault['input'])}; {message}", param)


def _place(location: Sequence[int | str]) -> str:
    """`n`, `metadata['shot']`, or `a key of metadata`."""
    names = [str(name) for name in location]
    if names[-1] == "[key]":
        return f"a key of {names[0]}"
    # Where a field takes several types, the type is part of the location.
    return f"metadata[{_show(names[1])}]" if names[0] == "metadata" and len(names) > 1 else names[0]


def _show(got: object) -> str:
    return _shorten(repr(got))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."
