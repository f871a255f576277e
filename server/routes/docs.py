"""Renders the OpenAPI document as one static page without scripts or external files."""

import re
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

# The colours of the page at `/`.
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.55 Inter, system-ui, sans-serif;
  background: light-dark(#f8f6f2, #141312); color: light-dark(#1d1b18, #f2efe9);
  --soft: light-dark(#676158, #a9a398); --line: light-dark(#e3ddd3, #33312d); --live: light-dark(#b8401a, #ff9468) }
body { max-width: 58rem; margin: 2rem auto 6rem; padding: 0 1rem; overflow-wrap: anywhere }
a { color: var(--live) } h1 { font-size: 1.5rem; letter-spacing: -.015em }
h2 { margin: 3rem 0 .6rem; font-size: 1.0625rem } h3 { margin: 1.4rem 0 .4rem; font-size: .8125rem; color: var(--soft) }
h2, code { font-family: ui-monospace, Menlo, Consolas, monospace } code { font-size: .9em } p { margin: .5rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .875rem }
td { border-top: 1px solid var(--line); padding: .4rem 1rem .4rem 0; vertical-align: top }
td:first-child { width: 13rem } td + td + td { width: 17rem; padding-right: 0; color: var(--soft) }
@media (max-width: 640px) { tr { display: block; border-top: 1px solid var(--line); padding: .4rem 0 }
  td, td:first-child, td + td + td { display: block; width: auto; border: 0; padding: 0 } td:empty { display: none } }
"""
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}

# How the bounds of a schema are written.
_BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "maxProperties": "at most {} entries",
    "pattern": "pattern {}",
    "default": "default {}",
}


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """API reference: all routes, fields and responses."""
    document = request.app.openapi()
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style><h1>{title}</h1>",
        _prose(document["info"]["description"]),
        "<p><a href='.'>Web page</a> · <a href=openapi.json>openapi.json</a></p>",
        *_operations(document),
        *_schemas(document),
    ]
    return HTMLResponse("\n".join(parts), headers=_HEADERS)


def _operations(document: dict[str, Any]) -> Iterator[str]:
    # Videos first, then by path.
    for path, item in sorted(
        document["paths"].items(), key=lambda pair: (not pair[0].startswith("/v1/videos"), pair[0])
    ):
        for method, operation in item.items():
            yield f"<h2>{method.upper()} {escape(path)}</h2>{_prose(operation.get('description', ''))}"
            parameters = [(one["name"], one["schema"], one) for one in operation.get("parameters", ())]
            yield _table("Parameters", parameters)
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            yield _table("Request body", _fields(body))
            yield _table("Responses", [(code, {}, response) for code, response in operation["responses"].items()])


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f"<h2 id={escape(name)}>{escape(name)}</h2>{_prose(schema.get('description', ''))}"
        yield _table("Fields", _fields(schema))


def _fields(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    return [(name, field, field) for name, field in schema.get("properties", {}).items()]


def _table(title: str, rows: Iterable[tuple[str, dict[str, Any], dict[str, Any]]]) -> str:
    """A table with a row for each name, its schema, and the object that holds its description."""
    lines = [
        f"<tr><td><code>{escape(str(name))}</code><td>{_inline(described.get('description', ''))}"
        f"<td>{_inline(_allowed(schema))}"
        for name, schema, described in rows
    ]
    return f"<h3>{title}</h3><table>{''.join(lines)}</table>" if lines else ""


def _prose(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _allowed(schema: dict[str, Any]) -> str:
    """The allowed values of a schema in words; code is in backticks."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    bounds = [
        words.format(f"`{schema[name]}`") for name, words in _BOUNDS.items() if schema.get(name) not in (None, "", {})
    ]
    return ", ".join(part for part in (_kind(schema), *bounds) if part).replace(", to ", " to ")


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_allowed(part) for part in schema["anyOf"] if part != {"type": "null"})
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_allowed(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object, each value {_allowed(schema['additionalProperties'])}"
    return str(schema.get("type", ""))
