"""Reads a request's body, JSON or form alike, into a dict of its fields."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

from fastapi import Depends, Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile

from jobs.errors import InvalidRequestError

URL_ENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
FORM_TYPES = (MULTIPART, URL_ENCODED)
_FORM_TYPES = {name.encode() for name in FORM_TYPES}

# The fields that may be files.
FILE_FIELDS = ("input_reference", "video")

# A form spells {"metadata": {"a": "b"}} as metadata[a]=b.
_NESTED_KEY = re.compile(r"(\w+)\[([^\[\]]+)\]")


@dataclass(frozen=True)
class Fields:
    """The fields of a request, without those that are null. Values of a form are strings; JSON's are `typed`.

    The value of a file is an empty object; its content is in `files`.
    """

    values: dict[str, Any]
    typed: bool
    files: Mapping[str, bytes] = field(default_factory=dict)


async def read_fields(request: Request) -> Fields:
    """Read the body.

    :raises InvalidRequestError: when it is neither a JSON object nor a form in UTF-8.
    """
    content_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    is_form = content_type in _FORM_TYPES
    if not is_form and content_type != b"application/json":
        raise InvalidRequestError(
            f"the content type is {content_type.decode('latin-1')[:100] or 'missing'!r}; "
            "send application/json or multipart/form-data",
            code="unsupported_content_type",
        )
    if is_form:
        _check_charset(parameters.get(b"charset", b"utf-8"))
    if is_form:
        return await _read_form(request)
    values = _parse_object(await request.body())
    return Fields({name: value for name, value in values.items() if value is not None}, typed=True)


FieldsDep = Annotated[Fields, Depends(read_fields)]


def _check_charset(charset: bytes) -> None:
    # Starlette decodes with any codec of Python that a client names: some take quadratic time, and Python keeps every
    # unknown name for ever.
    if charset.lower() not in (b"utf-8", b"utf8"):
        name = charset.decode("latin-1")[:40]
        raise InvalidRequestError(
            f"the form's charset is {name!r}; forms are read as utf-8: leave charset out, or send charset=utf-8",
            code="unsupported_charset",
        )


def _parse_object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        raise InvalidRequestError("the body is empty; send a JSON object", code="malformed_body")
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_float=_number, parse_constant=_refuse_constant)
        # JSON can spell a lone surrogate, which cannot be encoded again.
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


async def _read_form(request: Request) -> Fields:
    values: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    async with request.form() as form:
        for key, part in form.multi_items():
            nested = _NESTED_KEY.fullmatch(key)
            target = values.setdefault(nested[1], {}) if nested else values
            name = nested[2] if nested else key
            if not isinstance(target, dict) or name in target:
                raise InvalidRequestError(f"{key} is given more than once", param=key)
            if isinstance(part, UploadFile):
                files[key] = await _read_file(key, part)
            target[name] = {} if isinstance(part, UploadFile) else part
    if len(values) == 1 and next(iter(values)).lstrip().startswith("{"):
        raise InvalidRequestError(
            "the body looks like JSON but was sent as a form; add the header Content-Type: application/json",
            code="malformed_body",
        )
    return Fields(values, typed=False, files=files)


async def _read_file(key: str, file: UploadFile) -> bytes:
    if key not in FILE_FIELDS:
        raise InvalidRequestError(f"{key} is a file; only {' and '.join(FILE_FIELDS)} may be files", param=key)
    return await file.read()
