"""Wires the API together; nothing is decided here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from jobs.settings import Settings
from server import errors
from server.access import Access
from server.body_limit import BodyLimit
from server.dependencies import Services
from server.publishing import publishing
from server.routes import content, events, health, metrics, models, videos

DESCRIPTION = "Text prompts and class labels become videos. The video routes follow the OpenAI videos API."


def create_app(settings: Settings) -> FastAPI:
    """The application. It connects to Redis when it is first asked something, not before.

    :raises ValueError: when `settings.redis_url` is missing or is no URL of a Redis server.
    """
    services = Services.from_settings(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with publishing(services.publisher):
            yield
        await services.events.aclose()
        services.redis.close()

    app = FastAPI(
        title="FrameDiT server",
        description=DESCRIPTION,
        version=_version(),
        lifespan=lifespan,
        responses={"default": {"model": errors.ErrorEnvelope, "description": "What went wrong"}},
    )
    app.state.services = services
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Access, metrics=services.metrics)  # the last one is the outermost
    errors.install(app)
    for routes in (videos, events, content, models, health, metrics):
        app.include_router(routes.router)
    return app


def _version() -> str:
    try:
        return version("framedit-server")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
