"""Liveness and readiness."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from server.dependencies import ServicesDep
from server.errors import NotReadyError, documented

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """A positive answer."""

    status: Literal["ok"] = "ok"


@router.get("/livez")
async def livez() -> Health:
    """Liveness: the process answers requests."""
    return Health()


@router.get("/health")
async def health() -> Health:
    """Liveness under the name that clients of other inference servers request."""
    return Health()


@router.get("/readyz", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
def readyz(services: ServicesDep) -> Health:
    """Readiness: Redis answers and the artifact store is writable. The error names the components that fail.

    The result is up to two seconds old.
    """
    faults = services.readiness.faults()
    if faults:
        raise NotReadyError("; ".join(faults))
    return Health()
