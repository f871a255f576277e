"""Lets web pages of other origins call the API from a browser."""

from collections.abc import Sequence

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

# What scripts may read besides the body.
_EXPOSED_HEADERS = (
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Retry-After",
    "Server-Timing",
    "X-Request-Id",
    "X-Video-Id",
    "openai-poll-after-ms",
)


def install(app: FastAPI, origins: Sequence[str]) -> None:
    """Errors too carry the headers. Without cookies: who asks is told by a key in a header, or not at all."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=list(_EXPOSED_HEADERS),
    )
