"""The page at `/`: serves the files of `server/web/` unchanged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response
from starlette.staticfiles import StaticFiles

from server.dependencies import Services, ServicesDep

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).parents[1] / "web"

# The id in a link that is made only to learn the host of the bucket.
_ANY_VIDEO = "video_" + 32 * "0"
_SECONDS = 60

# With `no-cache` browsers keep the files and revalidate them, so an update is visible at once.
_HEADERS: Mapping[str, str] = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_files = StaticFiles(directory=WEB)


def _policy(services: ServicesDep) -> str:
    """The Content-Security-Policy: everything comes from this server, and nothing is inline.

    The exception is a bucket that clients are redirected to. The page uses `blob:` for files fetched with an API key,
    and `data:` for previews.
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
    """The origin that `GET /v1/videos/{id}/content` redirects to, after a space; empty where it sends files itself."""
    if services.artifacts.is_folder or services.settings.artifact_delivery != "redirect":
        return ""
    parts = urlsplit(services.artifacts.link(_ANY_VIDEO, "video", _SECONDS, "video/mp4", "inline"))
    return f" {parts.scheme}://{parts.netloc}"


PolicyDep = Annotated[str, Depends(_policy)]


@router.get("/")
@router.head("/")
async def page(request: Request, policy: PolicyDep) -> Response:
    """The page."""
    return await _file("index.html", request, policy)


@router.get("/web/{name}")
@router.head("/web/{name}")
async def page_file(name: str, request: Request, policy: PolicyDep) -> Response:
    """A script, style sheet or picture of the page."""
    return await _file(name, request, policy)


async def _file(name: str, request: Request, policy: str) -> Response:
    response = await _files.get_response(name, request.scope)
    response.headers.update({**_HEADERS, "Content-Security-Policy": policy})
    return response
