"""The OpenAPI document as a page that needs nothing from elsewhere: no script, no network."""

import json
from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; font-size: 1.1rem } code, pre, h2 { font-family: ui-monospace, monospace }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
td { border-top: 1px solid #8884; padding: .3rem .8rem .3rem 0; vertical-align: top }
pre { overflow: auto; font-size: .8rem } p { white-space: pre-line }
"""
_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}


@router.get("/docs")
def docs(request: Request) -> HTMLResponse:
    """Every route, field and answer, for people."""
    document = request.app.openapi()
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<meta name=viewport content='width=device-width'><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{escape(document['info']['description'])} <a href=openapi.json>openapi.json</a></p>",
        *_operations(document),
        *_schemas(document),
    ]
    return HTMLResponse("\n".join(parts), headers=_HEADERS)


def _operations(document: dict[str, Any]) -> Iterator[str]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"<h2>{method.upper()} {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"
            yield _table((one["name"], one["schema"], one) for one in operation.get("parameters", ()))
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            yield _fields(body)
            answers = operation["responses"].items()
            yield _table((code, {}, {"description": answer["description"]}) for code, answer in answers)


def _schemas(document: dict[str, Any]) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f"<h2>{escape(name)}</h2><p>{escape(schema.get('description', ''))}</p>{_fields(schema)}"


def _fields(schema: dict[str, Any]) -> str:
    return _table((name, field, field) for name, field in schema.get("properties", {}).items())


def _table(rows: Any) -> str:
    """Rows of a name, what is allowed, and what has a description."""
    lines = [
        f"<tr><td><code>{escape(str(name))}</code><td>{escape(described.get('description', ''))}"
        f"<td><code>{escape(_allowed(schema))}</code>"
        for name, schema, described in rows
    ]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _allowed(schema: dict[str, Any]) -> str:
    told = {key: value for key, value in schema.items() if key not in ("description", "title", "examples")}
    return json.dumps(told, ensure_ascii=False) if told else ""
