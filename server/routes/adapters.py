"""The route for the adapters that workers have announced."""

from http import HTTPStatus

from fastapi import APIRouter, Depends

from jobs.admission.worker_load import read_loads
from jobs.cards import known_models
from server.auth import REFUSALS, authenticate
from server.dependencies import ServicesDep
from server.errors import documented
from server.objects.adapter import Adapter, AdapterList

router = APIRouter(prefix="/v1/adapters", tags=["models"], dependencies=[Depends(authenticate)], responses=REFUSALS)


@router.get("", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
def list_adapters(services: ServicesDep) -> AdapterList:
    """List the adapters of all models, and those that a worker has refused, with the reason."""
    models = known_models(services.redis).values()
    available = [Adapter.of(adapter) for card, _ in models for adapter in card.adapters]
    refused = {
        name: error for load in read_loads(services.redis).values() for name, error in load.refused_adapters.items()
    }
    return AdapterList(data=available + [Adapter.refused(name, error) for name, error in sorted(refused.items())])
