"""The fields of a request body: those that are unknown, missing or of the wrong type, and the errors about them."""

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from jobs.errors import InvalidRequestError
from server.request_body import Fields
from server.wire import Body

_MAX_SHOWN_CHARACTERS = 100

# Fields of other servers of this API.
_ALTERNATIVES = {
    "generator_device": "leave it out: the start noise of a seed is the same on every device",
    "num_outputs_per_prompt": "send n",
    "true_cfg_scale": "send guidance_scale",
    "guidance_scale_2": "send guidance_scale, which holds for all steps",
    "flow_shift": "leave it out: the noise schedule belongs to the model",
    "max_sequence_length": "leave it out: GET /v1/models/{id} shows max_prompt_characters",
    "enable_teacache": "send speed; GET /v1/models/{id} shows the speed_plans of a model",
    "enable_frame_interpolation": "send num_frames and fps",
    "enable_upscaling": "leave it out: GET /v1/models/{id} shows the sizes of a model",
    "extra_body": "send its fields beside the others",
    "diffusers_kwargs": "send num_inference_steps, guidance_scale and sampler",
    "output_path": "leave it out and download the file from GET /v1/videos/{video_id}/content",
}

BodyT = TypeVar("BodyT", bound=Body)


def parse(body_type: type[BodyT], fields: Fields) -> BodyT:
    """:raises InvalidRequestError: for fields that are unknown, missing or of the wrong type."""
    unknown = [name for name in fields.values if name not in body_type.model_fields]
    for name in filter(_ALTERNATIVES.__contains__, unknown):
        raise InvalidRequestError(f"{name} is not supported; {_ALTERNATIVES[name]}", name, "unknown_parameter")
    if unknown:
        raise InvalidRequestError(
            f"unknown fields: {_shorten(', '.join(unknown))}; allowed are {', '.join(body_type.model_fields)}",
            param=_shorten(unknown[0]),
            code="unknown_parameter",
        )
    try:
        # JSON has types, which are checked strictly (true is not 1). A form has text only.
        return body_type.model_validate(fields.values, strict=fields.typed)
    except ValidationError as error:
        raise _explain(error) from None


def refuse(param: str, value: object, allowed: str) -> InvalidRequestError:
    """The error of a value, with what is allowed instead."""
    return InvalidRequestError(f"{param} is {show(value)}; {allowed}", param)


def _explain(error: ValidationError) -> InvalidRequestError:
    fault: dict[str, Any] = dict(error.errors(include_url=False)[0])
    param = str(fault["loc"][0])
    if fault["type"] == "missing":
        return InvalidRequestError(f"{param} is missing", param, code="missing_parameter")
    if fault["type"] == "extra_forbidden":
        return InvalidRequestError(f"{param} has an unknown field {show(fault['loc'][-1])}; leave it out", param)
    place = _place(fault["loc"])
    message = re.sub(r"^(Input|String|Dictionary) should", "it should", str(fault["msg"]))
    message = message.removesuffix(" after validation, not more")
    if fault["type"] == "string_too_long":
        return InvalidRequestError(f"{place} has {len(fault['input'])} characters; {message}", param)
    return InvalidRequestError(f"{place} is {show(fault['input'])}; {message}", param)


def _place(location: Sequence[int | str]) -> str:
    """`n`, `metadata['shot']`, or `a key of metadata`."""
    names = [str(name) for name in location]
    if names[-1] == "[key]":
        return f"a key of {names[0]}"
    # For a field of several types, pydantic appends the type to the location.
    return f"metadata[{show(names[1])}]" if names[0] == "metadata" and len(names) > 1 else names[0]


def show(value: object) -> str:
    """A value in a message, shortened."""
    return _shorten(repr(value))


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."
