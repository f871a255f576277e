"""Assembles the API from its routes, middleware and background work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi.telemetry import TelemetryConfig

from jobs.access.audit_log import AuditLog
from jobs.settings import Settings, split_list
from jobs.storage.janitor import Janitor
from jobs.telemetry.tracing import Tracing, start_tracing
from server import errors
from server.background import repeating, run_once
from server.dependencies import Services
from server.middleware import cors
from server.middleware.body_limit import BodyLimit
from server.middleware.request_log import RequestLog
from server.openapi import PLACEHOLDER, describe
from server.routes import (
    adapters,
    content,
    docs,
    edits,
    events,
    health,
    metrics,
    models,
    page,
    synchronous,
    usage,
    videos,
)
from server.webhooks.sender import sending_webhooks

DESCRIPTION = "Generates videos from text prompts and class labels. The video routes follow the OpenAI videos API."

# Of large bodies in progress. Their buffers take about three times as much memory.
_MAX_TOTAL_BODY_BYTES = 16 << 20

# Probes and scrapes, every few seconds.
_NOT_TRACED = ("/livez", "/readyz", "/health", "/metrics")


def create_app(settings: Settings) -> FastAPI:
    """The application. It connects to Redis at the first request.

    :raises ValueError: when `settings.redis_url` is missing or is not the URL of a Redis server, or the model of the
        prompt enhancer is missing.
    :raises TracingUnavailableError: when tracing is configured and its packages are not installed.
    """
    services = Services.from_settings(settings)
    janitor = Janitor(services.redis, services.artifacts, services.store_mark)
    tracing = start_tracing(settings.otlp_endpoint, "framedit-server")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            repeating("metrics publication", lambda _: services.publisher.publish()),
            repeating("janitor", janitor.run),
            sending_webhooks(services),
        ):
            yield
        await run_once("metrics publication", services.publisher.publish)
        await services.events.aclose()
        await services.batched.aclose()
        services.close()
        if tracing is not None:
            await run_in_threadpool(tracing.close)

    app = FastAPI(
        title="FrameDiT server",
        description=DESCRIPTION,
        version=_version(),
        lifespan=lifespan,
        telemetry=_telemetry(tracing),
        responses=PLACEHOLDER | errors.documented(HTTPStatus.INTERNAL_SERVER_ERROR),
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    app.add_middleware(BodyLimit, settings.max_body_bytes, settings.max_upload_bytes, _MAX_TOTAL_BODY_BYTES)
    if settings.cors_origins:
        cors.install(app, split_list(settings.cors_origins))
    audit_log = AuditLog(settings.audit_log) if settings.audit_log is not None else None
    app.add_middleware(
        RequestLog, metrics=services.metrics, tracing=tracing, audit_log=audit_log
    )  # the last one added is the outermost
    errors.install(app)
    for routes in (synchronous, edits, videos, events, content, models, adapters, usage, health, metrics, page, docs):
        app.include_router(routes.router)
    describe(app)
    return app


def _telemetry(tracing: Tracing | None) -> TelemetryConfig:
    """FastAPI's request spans only: metrics and logs have their own code."""
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
    except PackageNotFoundError:  # a source tree that is not installed
        return "0"
