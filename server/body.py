"""Reads a request's body, JSON or form alike, into a dict of its fields."""

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Request
from starlette.datastructures import UploadFile

from jobs.errors import InvalidRequestError

URL_ENCODED = "application/x-www-form-urlencoded"
FORM_TYPES = ("multipart/form-data", URL_ENCODED)

# Clients write {"metadata": {"a": "b"}} into a form as metadata[a]=b.
_NESTED_KEY = re.compile(r"(\w+)\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Fields:
    """The fields that a client sent, without those that are null. In a form all values are strings, not `typed`."""

    values: dict[str, Any]
    typed: bool


async def read_fields(request: Request) -> Fields:
    """:raises InvalidRequestError: when the body is neither a JSON object nor a form."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_form = content_type in FORM_TYPES
    if not is_form and content_type != "application/json":
        raise InvalidRequestError(
            f"the content type is {content_type or 'missing'!r}; send application/json or multipart/form-data",
            code="unsupported_content_type",
        )
    values = await _form_values(request) if is_form else _parse_object(await request.body())
    return Fields({name: value for name, value in values.items() if value is not None}, typed=not is_form)


FieldsDep = Annotated[Fields, Depends(read_fields)]


def _parse_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise InvalidRequestError("the body is empty; send a JSON object", code="malformed_body")
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_float=_number, parse_constant=_refuse_constant)
        # A lone surrogate, which JSON can spell, is no text: it could not be sent back.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the body is not valid JSON: {_reason(error)}", code="malformed_body") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the body is a JSON {type(value).__name__}; send an object", code="malformed_body")
    return value


def _number(text: str) -> float | int:
    """JSON has one kind of number: 7.0 is the integer 7."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return str(error)
    if isinstance(error, UnicodeError):
        return "its text is not valid Unicode"
    return "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it is not allowed"


async def _form_values(request: Request) -> dict[str, Any]:
    try:
        values = await _read_form(request)
        # A charset of the client's choice can make a lone surrogate of it, as in JSON, or nothing at all.
        json.dumps(values, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise InvalidRequestError(f"the form cannot be read: {_reason(error)}", code="malformed_body") from None
    return values


async def _read_form(request: Request) -> dict[str, Any]:
    values: dict[str, Any] = {}
    async with request.form() as form:
        for key, value in form.multi_items():
            if isinstance(value, UploadFile):
                raise InvalidRequestError(f"{key} is a file; no model here takes files", param=key)
            nested = _NESTED_KEY.fullmatch(key)
            target = values.setdefault(nested[1], {}) if nested else values
            name = nested[2] if nested else key
            if not isinstance(target, dict) or name in target:
                raise InvalidRequestError(f"{key} is given more than once", param=key)
            target[name] = value
    if len(values) == 1 and next(iter(values)).lstrip().startswith("{"):
        raise InvalidRequestError(
            "the body looks like JSON but was sent as a form; add the header Content-Type: application/json",
            code="malformed_body",
        )
    return values
