"""Whether the process lives, and whether it can do its work."""

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from redis.exceptions import RedisError

from jobs.errors import ArtifactStoreError
from server.dependencies import Services, ServicesDep
from server.errors import NotReadyError, documented

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/livez")
async def livez() -> Health:
    """Answers as long as the process does anything at all."""
    return Health()


@router.get("/readyz", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
def readyz(services: ServicesDep) -> Health:
    """Whether Redis can be reached and the artifact store written; the error names the part that cannot."""
    faults = _faults(services)
    if faults:
        raise NotReadyError("; ".join(faults))
    return Health()


def _faults(services: Services) -> list[str]:
    faults = []
    try:
        services.redis.ping()
    except RedisError:
        faults.append("redis does not answer")
    try:
        services.artifacts.check_writable()
    except ArtifactStoreError as error:
        faults.append(error.message)
    return faults
