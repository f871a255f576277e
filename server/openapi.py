"""What the OpenAPI document says beyond what FastAPI knows by itself."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from server.body import FORM_TYPES, URL_ENCODED
from server.errors import ErrorEnvelope

# Keeps FastAPI from adding its own 422, which is never answered; `describe` takes it out again.
PLACEHOLDER: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorEnvelope}}

# What can be done with a video that was just asked for, by the names of the routes.
_NEXT = ("retrieve_video", "video_events", "video_content", "cancel_video", "remix_video", "delete_video")


def request_body(body_type: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that takes `body_type` as JSON or as a form."""
    schema = body_type.model_json_schema()
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    form = _without_null(schema)
    content |= {content_type: {"schema": form} for content_type in FORM_TYPES}
    if "metadata" in schema["properties"]:  # metadata[key]=value
        content[URL_ENCODED]["encoding"] = {"metadata": {"style": "deepObject", "explode": True}}
        form["properties"]["metadata"]["propertyNames"]["pattern"] = r"^[^\[\]]+$"
    return {"requestBody": {"required": True, "content": content}}


def links_of_video() -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that answers a new video."""
    parameters = {"video_id": "$response.body#/id"}
    return {200: {"links": {name: {"operationId": name, "parameters": parameters} for name in _NEXT}}}


def describe(app: FastAPI) -> None:
    """Let the document of `app` hold nothing that is not so."""
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
    """Every operation of a document."""
    for item in schema["paths"].values():
        yield from item.values()


def _without_null(schema: Any) -> Any:
    """The same for a form, which has no way to say null."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_null(part) for key, part in schema.items() if not (key == "default" and part is None)}
