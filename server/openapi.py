"""Additions to the OpenAPI document that FastAPI generates."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from server.errors import ErrorEnvelope
from server.request_body import FORM_TYPES, MULTIPART, URL_ENCODED

# Keeps FastAPI from documenting its own 422, which this server never sends; `describe` removes it again.
PLACEHOLDER: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope}}

# The operations that apply to a new video.
_NEXT = ("retrieve_video", "video_events", "video_content", "cancel_video", "remix_video", "delete_video")


def request_body(body_type: type[BaseModel], files: Sequence[str] = ()) -> dict[str, Any]:
    """The `openapi_extra` of a route that accepts `body_type` as JSON or as a form.

    In a form of several parts, the fields `files` may be files.
    """
    schema = _inlined(body_type.model_json_schema())
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    form = _without_null(schema)
    content |= {content_type: {"schema": copy.deepcopy(form)} for content_type in FORM_TYPES}
    for name in files:
        content[MULTIPART]["schema"]["properties"][name] = {"type": "string", "format": "binary"}
    if "metadata" in schema["properties"]:  # metadata[key]=value
        nested = [name for name in ("metadata", *files) if name in schema["properties"]]
        content[URL_ENCODED]["encoding"] = {name: {"style": "deepObject", "explode": True} for name in nested}
        form["properties"]["metadata"]["propertyNames"]["pattern"] = r"^[^\[\]]+$"
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its `$defs` in place of the references to them, which no reader of the document could follow."""
    definitions = schema.pop("$defs", {})

    def inline(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return definitions[value["$ref"].rpartition("/")[2]] | {k: v for k, v in value.items() if k != "$ref"}
            return {name: inline(part) for name, part in value.items()}
        return [inline(part) for part in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = inline(schema)
    return inlined


def links_of_video() -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that creates a video: links to the operations on it."""
    parameters = {"video_id": "$response.body#/id"}
    return {200: {"links": {name: {"operationId": name, "parameters": parameters} for name in _NEXT}}}


def describe(app: FastAPI) -> None:
    """Correct the OpenAPI document of `app`."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        schema = generate()
        if is_new:
            for operation in operations(schema):
                operation["responses"].pop("default", None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def operations(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All operations of a document."""
    for item in schema["paths"].values():
        yield from item.values()


def _without_null(schema: Any) -> Any:
    """The same schema for a form, which cannot express null."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_null(part) for key, part in schema.items() if not (key == "default" and part is None)}
