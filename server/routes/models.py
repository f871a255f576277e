"""The models that workers have announced."""

from http import HTTPStatus

from fastapi import APIRouter, Depends

from jobs.cards import known_models
from jobs.errors import ModelNotFoundError
from server.auth import REFUSALS, authenticate
from server.dependencies import ServicesDep
from server.errors import documented
from server.wire import Model, ModelList, to_model

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(authenticate)], responses=REFUSALS)


@router.get("", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
def list_models(services: ServicesDep) -> ModelList:
    """Every model that a worker ever announced, also those whose workers are all away."""
    return ModelList(data=[to_model(card, alive) for card, alive in known_models(services.redis).values()])


@router.get("/{model_id}", responses=documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE))
def retrieve_model(model_id: str, services: ServicesDep) -> Model:
    """What a model makes, its defaults and its limits."""
    known = known_models(services.redis)
    if model_id not in known:
        raise ModelNotFoundError(model_id, known)
    return to_model(*known[model_id])
