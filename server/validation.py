"""Validates the values of a request against the model's card and fills in the defaults."""

from typing import TypeVar

from jobs.cards import ModelCard
from jobs.errors import InvalidRequestError
from jobs.speed_plans import explain_refusal
from jobs.videos.record import AdapterUse, VideoRequest, new_seed
from server.output_options import output_format, output_quality
from server.request_fields import refuse, show
from server.wire import CreateVideo, ExtendVideo, RemixVideo

# As many as 16 pairs of the longest keys and values have in ASCII.
MAX_METADATA_BYTES = 16 * (64 + 512)


def resolve(body: CreateVideo, card: ModelCard) -> VideoRequest:
    """The request with all defaults filled in.

    :raises InvalidRequestError: for a value that the model does not allow.
    """
    label = _class_label(body, card)
    fps = body.fps or card.fps
    _check_size(body, card)
    _check_speed(body, card)
    num_frames = _num_frames(body, card, fps)
    file_format = output_format(body, num_frames, fps)
    return VideoRequest(
        model=card.id,
        prompt=_prompt(body.prompt, card),
        negative_prompt=_negative_prompt(body.negative_prompt, card),
        clean_caption=_clean_caption(body.clean_caption, card),
        class_label=label,
        class_name=None if label is None else (card.class_names or [])[label],
        seed=new_seed() if body.seed is None else body.seed,
        num_frames=num_frames,
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
        adapters=_adapters(body, card),
        speed=body.speed,
        priority=body.priority,
        metadata=_metadata(body),
        webhook_url=body.webhook_url,
        frame_rate_multiplier=body.frame_rate_multiplier,
        output_format=file_format,
        output_quality=output_quality(body, file_format),
    )


def resolve_remix(body: RemixVideo, request: VideoRequest, card: ModelCard) -> VideoRequest:
    """The request of an existing video with another prompt or seed. It keeps everything else, its reference included.

    :raises InvalidRequestError: when there is nothing to change, or the model does not allow the prompt.
    """
    if body.prompt is None and body.seed is None:
        raise InvalidRequestError(
            "prompt is missing; send a prompt, a seed or both", "prompt", code="missing_parameter"
        )
    changes: dict[str, object] = {} if body.seed is None else {"seed": body.seed}
    if body.prompt is not None:
        changes |= {"prompt": _remixed_prompt(body.prompt, card), "original_prompt": None, "prompt_enhancement": None}
    return request.model_copy(update=changes)


def _remixed_prompt(prompt: str, card: ModelCard) -> str | None:
    if prompt.strip() and card.conditioning != "text":
        raise refuse("prompt", prompt, f"{card.id} takes no prompt; leave it out and send a seed")
    return _prompt(prompt, card)


def _prompt(prompt: str | None, card: ModelCard) -> str | None:
    given = (prompt or "").strip()
    if card.conditioning == "text":
        if not given:
            raise InvalidRequestError(
                f"prompt is missing; {card.id} needs a description of the video{_example(card)}", "prompt"
            )
        return _short_enough("prompt", given, card)
    if given:
        instead = "send class_label" if card.conditioning == "class" else "leave it out"
        raise refuse("prompt", given, f"{card.id} takes no prompt; {instead}")
    return None


def _negative_prompt(negative_prompt: str | None, card: ModelCard) -> str | None:
    if card.conditioning == "text":
        given = card.negative_prompt if negative_prompt is None else negative_prompt.strip()
        return _short_enough("negative_prompt", given, card)
    if negative_prompt:
        raise refuse("negative_prompt", negative_prompt, f"{card.id} takes no prompts; leave it out")
    return None


def _clean_caption(clean_caption: bool | None, card: ModelCard) -> bool:
    if card.conditioning == "text":
        return card.clean_caption if clean_caption is None else clean_caption
    if clean_caption:
        raise refuse("clean_caption", clean_caption, f"{card.id} takes no prompts; leave it out")
    return False


def _class_label(body: CreateVideo, card: ModelCard) -> int | None:
    label, names = body.class_label, card.class_names or []
    if card.conditioning != "class":
        if label in (None, ""):
            return None
        raise refuse("class_label", label, f"{card.id} has no classes; leave it out")
    allowed = f"{card.id} has the classes 0..{len(names) - 1}: {', '.join(names)}"
    if label in (None, ""):
        raise InvalidRequestError(f"class_label is missing; {allowed}", "class_label")
    if label in names:
        return names.index(str(label))
    # A form sends numbers as text.
    index = int(label) if isinstance(label, int) or (label.isascii() and label.isdigit() and len(label) < 10) else -1
    if not 0 <= index < len(names):
        raise refuse("class_label", label, allowed)
    return index


def _num_frames(body: CreateVideo, card: ModelCard, fps: int) -> int:
    num_frames = _wanted_frames(body, fps)
    if num_frames is None:
        return card.num_frames
    if not card.min_frames <= num_frames <= card.max_frames:
        allowed = f"{card.id} allows {card.min_frames} to {card.max_frames} frames"
        if body.num_frames is not None:
            raise refuse("num_frames", num_frames, allowed)
        shortest, longest = (f"{frames / fps:g}" for frames in (card.min_frames, card.max_frames))
        raise refuse("seconds", body.seconds, f"{allowed}, which at {fps} fps are {shortest} to {longest} seconds")
    return num_frames


def continuation_frames(body: ExtendVideo, card: ModelCard, fps: int, overlap_frames: int) -> int:
    """How many frames an extension adds; by default as many as one row of the model's batch has left.

    :raises InvalidRequestError: for more than the model allows.
    """
    num_frames = _wanted_frames(body, fps, at_least=1) or max(1, card.frames_per_row - overlap_frames)
    longest = card.max_frames - overlap_frames
    if num_frames > longest:
        allowed = f"{card.id} adds at most {longest} frames at once, which at {fps} fps are {longest / fps:g} seconds"
        param, value = ("seconds", body.seconds) if body.num_frames is None else ("num_frames", num_frames)
        raise refuse(param, value, allowed)
    return num_frames


def _wanted_frames(body: CreateVideo | ExtendVideo, fps: int, at_least: int = 0) -> int | None:
    """The number of frames that `num_frames` or `seconds` asks for, None without both."""
    if body.seconds is None:
        return body.num_frames
    from_seconds = max(at_least, round(_seconds(body.seconds) * fps))
    if body.num_frames not in (None, from_seconds):
        raise refuse(
            "seconds",
            body.seconds,
            f"that is {from_seconds} frames at {fps} fps, but num_frames is {body.num_frames}; send one of the two",
        )
    return from_seconds


def _seconds(seconds: str | float) -> float:
    try:
        value = float(seconds)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e6:
        raise refuse("seconds", seconds, 'it should be a number above 0, such as "2"')
    return value


def _check_size(body: CreateVideo, card: ModelCard) -> None:
    if body.size not in (None, card.size):
        raise refuse("size", body.size, f"{card.id} allows {card.size}")
    if body.width not in (None, card.width):
        raise refuse("width", body.width, f"{card.id} allows {card.width}")
    if body.height not in (None, card.height):
        raise refuse("height", body.height, f"{card.id} allows {card.height}")


def _metadata(body: CreateVideo) -> dict[str, str]:
    metadata = _with_user(body)
    num_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if num_bytes > MAX_METADATA_BYTES:
        raise InvalidRequestError(
            f"metadata has {num_bytes} bytes in UTF-8; at most {MAX_METADATA_BYTES} are allowed: shorten its values",
            "metadata",
        )
    return metadata


def _with_user(body: CreateVideo) -> dict[str, str]:
    if body.user is None:
        return body.metadata
    if body.metadata.get("user", body.user) != body.user:
        raise refuse(
            "user", body.user, f"metadata has another user, {show(body.metadata['user'])}; send one of the two"
        )
    return body.metadata | {"user": body.user}


def _sampler(sampler: str | None, card: ModelCard) -> str:
    if sampler is not None and sampler not in card.samplers:
        raise refuse("sampler", sampler, f"{card.id} allows {', '.join(card.samplers)}")
    return sampler or card.sampler


def _adapters(body: CreateVideo, card: ModelCard) -> list[AdapterUse]:
    known = {adapter.name: adapter for adapter in card.adapters}
    uses: dict[str, AdapterUse] = {}
    for given in body.adapters:
        if given.name not in known:
            allowed = f"has the adapters {', '.join(known)}" if known else "has no adapters"
            raise refuse("adapters", given.name, f"{card.id} {allowed}")
        if given.name in uses:
            raise refuse("adapters", given.name, "it is named twice; send each adapter once")
        scale = known[given.name].scale if given.scale is None else given.scale
        uses[given.name] = AdapterUse(name=given.name, scale=scale)
    return list(uses.values())


def _check_speed(body: CreateVideo, card: ModelCard) -> None:
    sampler, steps = _sampler(body.sampler, card), body.num_inference_steps or card.num_inference_steps
    refusal = explain_refusal(card.id, card.speed_plans, body.speed, sampler, steps)
    if refusal is not None:
        raise refuse("speed", body.speed, refusal)


Number = TypeVar("Number", int, float)


def _at_most(param: str, value: Number, largest: Number, card: ModelCard) -> Number:
    if value > largest:
        raise refuse(param, value, f"{card.id} allows at most {largest:g}")
    return value


def _short_enough(param: str, text: str, card: ModelCard) -> str:
    if len(text) > card.max_prompt_characters:
        raise InvalidRequestError(
            f"{param} has {len(text)} characters; {card.id} allows at most {card.max_prompt_characters}", param
        )
    return text


def _example(card: ModelCard) -> str:
    return f", for example {card.examples[0]!r}" if card.examples else ""
