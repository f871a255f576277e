"""The page at `/`: files of `server/web/`, as they are."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

WEB = Path(__file__).parents[1] / "web"

# Everything comes from this server and nothing is inline. Videos and their pictures may also be `blob:`, which is how
# the page shows what it had to fetch with an API key, and previews are `data:`.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
)
# `no-cache` lets a browser keep the files and has it ask whether they have changed: an update shows at once.
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_files = StaticFiles(directory=WEB)


@router.get("/")
@router.head("/")
async def page(request: Request) -> Response:
    """The page itself."""
    return await _file("index.html", request)


@router.get("/web/{name}")
@router.head("/web/{name}")
async def page_file(name: str, request: Request) -> Response:
    """A script, a style sheet or a picture of the page."""
    return await _file(name, request)


async def _file(name: str, request: Request) -> Response:
    response = await _files.get_response(name, request.scope)
    response.headers.update(_HEADERS)
    return response
