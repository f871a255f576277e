"""Describes a body that is read by hand, for OpenAPI."""

from typing import Any

from pydantic import BaseModel

from server.body import FORM_TYPES


def request_body(body_type: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that takes `body_type` as JSON or as a form."""
    schema = body_type.model_json_schema()
    content = {content_type: {"schema": schema} for content_type in ("application/json", *FORM_TYPES)}
    return {"requestBody": {"required": True, "content": content}}
