"""Wires the API together; nothing is decided here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.telemetry import TelemetryConfig

from jobs.janitor import Janitor
from jobs.settings import Settings, split_origins
from jobs.tracing import Tracing, start_tracing
from server import cors, errors
from server.access import Access
from server.body_limit import BodyLimit
from server.cleaning import cleaning
from server.dependencies import Services
from server.openapi import PLACEHOLDER, describe
from server.publishing import publishing
from server.routes import content, docs, events, health, metrics, models, page, synchronous, videos
from server.webhook_sender import sending_webhooks

DESCRIPTION = "Text prompts and class labels become videos. The video routes follow the OpenAI videos API."

# What looks in every few seconds.
_NOT_TRACED = ("/livez", "/readyz", "/metrics")


def create_app(settings: Settings) -> FastAPI:
    """The application. It connects to Redis when it is first asked something, not before.

    :raises ValueError: when `settings.redis_url` is missing or is no URL of a Redis server.
    :raises TracingUnavailableError: when traces are wanted and the packages for them are not there.
    """
    services = Services.from_settings(settings)
    janitor = Janitor(services.redis, services.store, services.artifacts)
    tracing = start_tracing(settings.otlp_endpoint, "framedit-server")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with publishing(services.publisher), sending_webhooks(services), cleaning(janitor):
            yield
        await services.events.aclose()
        await services.batched.aclose()
        services.redis.close()
        if tracing is not None:
            await run_in_threadpool(tracing.close)

    app = FastAPI(
        title="FrameDiT server",
        description=DESCRIPTION,
        version=_version(),
        lifespan=lifespan,
        telemetry=_telemetry(tracing),
        responses=PLACEHOLDER,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    if settings.cors_origins:
        cors.install(app, split_origins(settings.cors_origins))
    app.add_middleware(Access, metrics=services.metrics, tracing=tracing)  # the last one is the outermost
    errors.install(app)
    for routes in (synchronous, videos, events, content, models, health, metrics, page, docs):
        app.include_router(routes.router)
    describe(app)
    return app


def _telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """FastAPI's own spans of requests, and nothing else of what it offers: metrics and logs are ours."""
    return {
        "tracing": tracing is not None,
        "tracer_provider": tracing.provider if tracing else None,
        "metrics": False,
        "logs": False,
        "operation_spans": False,
        "auto_configure": False,
        "exclude": lambda scope: scope["path"] in _NOT_TRACED,
    }


def _version() -> str:
    try:
        return version("framedit-server")
    except PackageNotFoundError:  # run from a source tree that is not installed
        return "0"
