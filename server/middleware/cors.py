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
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Retry-After",
    "Server-Timing",
    "X-Inference-Time-S",
    "X-Model",
    "X-Request-Id",
    "X-Video-Id",
    "openai-poll-after-ms",
)


def install(app: FastAPI, origins: Sequence[str]) -> None:
    """Add CORS headers to all responses, errors included. Cookies are not used: an API key is sent in a header."""
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=list(_EXPOSED_HEADERS),
    )
