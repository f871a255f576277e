"""Requests that start from an image or a video: references, edits and extensions."""

from collections.abc import Callable
from dataclasses import dataclass

from jobs.cards import ModelCard
from jobs.errors import InvalidRequestError
from jobs.settings import Settings
from jobs.videos.record import Reference, ReferenceUse, VideoRequest
from server.references.decoder import DecodedFrames
from server.references.source import SourceVideo
from server.validation import continuation_frames, resolve
from server.wire import CreateVideo, EditVideo, ExtendVideo, VideoSettings

# The model that a request names, or that its fields fit.
ChooseModel = Callable[[CreateVideo], ModelCard]

# An extension keeps these fields of its source, and an edit all but the subject. Neither keeps the seed: with the same
# start noise, a continuation would resemble the frames that it continues.
_SUBJECT = ("prompt", "class_label")
_INHERITED = (
    "negative_prompt",
    "clean_caption",
    "num_inference_steps",
    "guidance_scale",
    "sampler",
    "adapters",
    "speed",
    "frame_rate_multiplier",
    "priority",
    "metadata",
    "webhook_url",
)
_OUTPUT = ("output_format", "output_quality")


@dataclass(frozen=True)
class ReferencedRequest:
    """A request, and the frames that it starts from, if any."""

    request: VideoRequest
    card: ModelCard
    frames: DecodedFrames | None = None


def resolve_create(
    body: CreateVideo, source: SourceVideo | None, choose: ChooseModel, settings: Settings
) -> ReferencedRequest:
    """A new video, whose first or last frames may be known.

    :raises InvalidRequestError: for a value that the model does not allow, or a file that cannot be decoded.
    """
    card = choose(body)
    request = resolve(body, card)
    if source is None:
        return ReferencedRequest(request, card)
    ends = 2 if body.reference_frame == "all" else 1
    if request.num_frames <= ends:
        raise InvalidRequestError(
            f"num_frames is {request.num_frames}; with an input_reference, a video has at least {ends + 1}",
            "num_frames",
        )
    longest = max(1, min(card.frames_per_row // 2, request.num_frames - 1))
    frames = source.decode(settings, card, request.fps, max_frames=longest)
    if frames.num_frames > 1 and body.reference_frame == "all":
        raise InvalidRequestError(
            "reference_frame is 'all', which an image can be; a video can be the first or the last frames",
            "reference_frame",
        )
    return ReferencedRequest(_referring(request, body.reference_frame, frames, source), card, frames)


def resolve_edit(body: EditVideo, source: SourceVideo, choose: ChooseModel, settings: Settings) -> ReferencedRequest:
    """A video that begins from a noisy copy of `source`; an image is a still video. Raises as `resolve_create` does."""
    new = _completed(body, source, _INHERITED)
    card = choose(new)
    fps = _fps(source, card)
    frames = source.decode(settings, card, fps, max_frames=card.max_frames + 1)
    if frames.num_frames > card.max_frames:
        raise InvalidRequestError(
            f"video has more than {card.max_frames} frames at {fps} fps, the most that {card.id} edits; "
            "send a shorter video",
            "video",
        )
    if frames.num_frames == 1:
        frames = frames.repeated(card.num_frames)
    request = resolve(new.model_copy(update={"num_frames": frames.num_frames, "fps": fps}), card)
    return ReferencedRequest(_referring(request, "edit", frames, source, strength=body.strength), card, frames)


def resolve_extension(
    body: ExtendVideo, source: SourceVideo, choose: ChooseModel, settings: Settings
) -> ReferencedRequest:
    """A video that is `source` and its continuation. Raises as `resolve_create` does."""
    new = _completed(body, source, _SUBJECT + _INHERITED)
    card = choose(new)
    fps = _fps(source, card)
    frames = source.decode(settings, card, fps)
    overlap = _overlap(body, frames, card)
    new_frames = continuation_frames(body, card, fps, overlap)
    longest = settings.max_reference_frames
    if frames.num_frames + new_frames > longest:
        raise InvalidRequestError(
            f"video has {frames.num_frames} frames or more and would have {new_frames} more; at most {longest} are "
            "allowed: extend a shorter video",
            "video",
        )
    request = resolve(new.model_copy(update={"num_frames": overlap + new_frames, "fps": fps}), card)
    request = request.model_copy(update={"num_frames": frames.num_frames + new_frames})
    return ReferencedRequest(_referring(request, "extend", frames, source, overlap_frames=overlap), card, frames)


def _completed(body: VideoSettings, source: SourceVideo, inherited: tuple[str, ...]) -> CreateVideo:
    """The settings of `body`, completed by those of a source video that is of the same model."""
    given = body.model_dump(include=set(VideoSettings.model_fields), exclude_unset=True)
    if source.record is not None and given.get("model", source.record.request.model) == source.record.request.model:
        # The format of an image is none for a video.
        output = _OUTPUT if source.record.request.num_frames > 1 and "output_format" not in given else ()
        request = source.record.request.model_dump(include={"model", *inherited, *output}, exclude_none=True)
        if body.user is not None:
            request["metadata"].pop("user", None)
        given = request | given
    return CreateVideo.model_validate(given)


def _fps(source: SourceVideo, card: ModelCard) -> int:
    return card.fps if source.record is None else source.record.request.fps


def _overlap(body: ExtendVideo, frames: DecodedFrames, card: ModelCard) -> int:
    longest = min(frames.num_frames, max(1, card.frames_per_row - 1))
    if body.overlap_frames is None:
        return min(max(1, card.frames_per_row // 2), longest)
    if body.overlap_frames > longest:
        raise InvalidRequestError(
            f"overlap_frames is {body.overlap_frames}; for this video, {card.id} allows 1 to {longest}",
            "overlap_frames",
        )
    return body.overlap_frames


def _referring(
    request: VideoRequest,
    use: ReferenceUse,
    frames: DecodedFrames,
    source: SourceVideo,
    strength: float | None = None,
    overlap_frames: int = 0,
) -> VideoRequest:
    reference = Reference(
        use=use,
        num_frames=frames.num_frames,
        source_video_id=source.record.id if source.record else None,
        strength=strength,
        overlap_frames=overlap_frames,
    )
    return request.model_copy(update={"reference": reference})
