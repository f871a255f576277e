"""Routes for the models that workers have announced."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import APIRouter, Depends

from jobs.admission.worker_load import read_loads
from jobs.cards import ModelCard, known_models
from jobs.errors import ModelNotFoundError, ModelPinnedError
from jobs.model_commands import pin_model, read_commands, send_command
from server.auth import REFUSALS, AdminDep, authenticate
from server.dependencies import Services, ServicesDep
from server.errors import documented
from server.objects.model import Model, ModelList, to_model

router = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(authenticate)], responses=REFUSALS)

_NOT_FOUND = documented(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE)
_REFUSED = documented(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.SERVICE_UNAVAILABLE)


@router.get("", responses=documented(HTTPStatus.SERVICE_UNAVAILABLE))
def list_models(services: ServicesDep) -> ModelList:
    """List all models that workers have announced, including those without a worker at the moment."""
    return ModelList(data=_objects(services, known_models(services.redis)))


@router.get("/{model_id}", responses=_NOT_FOUND)
def retrieve_model(model_id: str, services: ServicesDep) -> Model:
    """Retrieve a model: conditioning, sizes, defaults and limits, and how many workers have it in memory."""
    return _objects(services, _find(services, model_id))[0]


@router.post("/{model_id}/load", responses=_NOT_FOUND, status_code=HTTPStatus.ACCEPTED)
def load_model(model_id: str, services: ServicesDep, _: AdminDep) -> Model:
    """Load a model on every worker that serves it. Requires the scope admin. Workers follow within seconds."""
    found = _find(services, model_id)
    send_command(services.redis, model_id, "load")
    return _objects(services, found)[0]


@router.post("/{model_id}/unload", responses=_REFUSED, status_code=HTTPStatus.ACCEPTED)
def unload_model(model_id: str, services: ServicesDep, _: AdminDep) -> Model:
    """Unload a model on every worker, once its running videos are denoised. Its next video loads it again.

    Requires the scope admin. A pinned model is refused.
    """
    found = _find(services, model_id)
    if read_commands(services.redis, [model_id])[model_id].pinned:
        raise ModelPinnedError(model_id)
    send_command(services.redis, model_id, "unload")
    return _objects(services, found)[0]


@router.post("/{model_id}/pin", responses=_NOT_FOUND, status_code=HTTPStatus.ACCEPTED)
def keep_model(model_id: str, services: ServicesDep, _: AdminDep) -> Model:
    """Pin a model: every worker that serves it loads it and keeps it in memory. Requires the scope admin."""
    found = _find(services, model_id)
    pin_model(services.redis, model_id, True)
    return _objects(services, found)[0]


@router.post("/{model_id}/unpin", responses=_NOT_FOUND, status_code=HTTPStatus.ACCEPTED)
def release_model(model_id: str, services: ServicesDep, _: AdminDep) -> Model:
    """Unpin a model: workers may unload it again. Requires the scope admin."""
    found = _find(services, model_id)
    pin_model(services.redis, model_id, False)
    return _objects(services, found)[0]


def _find(services: Services, model_id: str) -> Mapping[str, tuple[ModelCard, int]]:
    known = known_models(services.redis)
    if model_id not in known:
        raise ModelNotFoundError(model_id, known)
    return {model_id: known[model_id]}


def _objects(services: Services, models: Mapping[str, tuple[ModelCard, int]]) -> list[Model]:
    loads = read_loads(services.redis).values()
    commands = read_commands(services.redis, list(models))
    return [
        to_model(card, alive, [load.models.get(model) for load in loads], pinned=commands[model].pinned)
        for model, (card, alive) in models.items()
    ]
