"""The page at `/`: files of `server/web/`, as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from starlette.staticfiles import StaticFiles

from server.dependencies import Services, ServicesDep

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).parents[1] / "web"

# A link is asked for only to learn where links lead.
_ANY_VIDEO = "video_" + 32 * "0"
_SECONDS = 60

# `no-cache` lets a browser keep the files and has it ask whether they have changed: an update shows at once.
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_files = StaticFiles(directory=WEB)


def _policy(services: ServicesDep) -> str:
    """The Content-Security-Policy: everything is from this server, and nothing is inline.

    But for videos in a bucket, where clients are sent there. `blob:` is how the page shows what it had to fetch with an
    API key, `data:` are previews.
    """
    bucket = _bucket(services)
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"connect-src 'self'{bucket}",
            f"img-src 'self' blob: data:{bucket}",
            f"media-src 'self' blob:{bucket}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _bucket(services: Services) -> str:
    """The origin that `GET /v1/videos/{id}/content` sends clients to, after a space; empty where it sends files."""
    if services.artifacts.is_folder or services.settings.artifact_delivery != "redirect":
        return ""
    parts = urlsplit(services.artifacts.link(_ANY_VIDEO, "video", _SECONDS, "video/mp4", "inline"))
    return f" {parts.scheme}://{parts.netloc}"


PolicyDep = Annotated[str, Depends(_policy)]


@router.get("/")
@router.head("/")
async def page(request: Request, policy: PolicyDep) -> Response:
    """The page itself."""
    return await _file("index.html", request, policy)


@router.get("/web/{name}")
@router.head("/web/{name}")
async def page_file(name: str, request: Request, policy: PolicyDep) -> Response:
    """A script, a style sheet or a picture of the page."""
    return await _file(name, request, policy)


async def _file(name: str, request: Request, policy: str) -> Response:
    response = await _files.get_response(name, request.scope)
    response.headers.update({**_HEADERS, "Content-Security-Policy": policy})
    return response
