"""Prometheus metrics of the whole deployment."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jobs.telemetry.metrics import collect
from server.auth import REFUSALS, metrics_access
from server.dependencies import ServicesDep
from server.errors import documented

router = APIRouter(tags=["health"])


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


@router.get(
    "/metrics",
    dependencies=[Depends(metrics_access)],
    response_class=Response,
    responses={
        200: {"description": "The metrics", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **REFUSALS,
        **documented(HTTPStatus.SERVICE_UNAVAILABLE),
    },
)
def metrics(services: ServicesDep) -> Response:
    """The metrics of all servers and workers, from any server."""
    services.publisher.publish()
    registry = CollectorRegistry()
    registry.register(_Collected(collect(services.redis)))
    return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
