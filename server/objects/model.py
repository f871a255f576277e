"""The model object, and how a card becomes one."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from jobs.admission.worker_load import ModelState
from jobs.cards import ModelCard
from jobs.speed_plans import SPEEDS, Speed


class Model(ModelCard):
    """A model card with the number of workers that serve it."""

    object: Literal["model"] = "model"
    sizes: list[str] = Field(description="`WxH` in pixels")
    speeds: list[Speed] = Field(description="Allowed values of `speed`, each with the samplers of its `speed_plans`")
    workers_alive: int = Field(description="With 0, videos are accepted and stay queued")
    workers_loaded: int = Field(description="Workers that have the model in memory")
    workers_loading: int = Field(description="Workers that are loading the model")
    pinned: bool = Field(description="Whether workers keep the model in memory")


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[Model]


def to_model(card: ModelCard, workers_alive: int, states: Sequence[ModelState | None], *, pinned: bool) -> Model:
    """The model object of a card. `states` are those of the model on each worker."""
    return Model(
        **card.model_dump(),
        sizes=[card.size],
        speeds=[each for each in SPEEDS if each == "exact" or any(plan.speed == each for plan in card.speed_plans)],
        workers_alive=workers_alive,
        workers_loaded=states.count("loaded"),
        workers_loading=states.count("loading"),
        pinned=pinned,
    )
