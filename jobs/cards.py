"""Model cards: what a checkpoint folder says of itself in `card.json`, and what workers announce to the server."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from redis import Redis

from jobs.connection import server_time
from jobs.errors import InvalidCardError

CARD_FILE = "card.json"
_MODELS_KEY = "framedit:models"
_WORKERS_KEY = "framedit:workers:{model}"

ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class ModelCard(BaseModel):
    """Everything that the server must know of a model to check a request; sizes in pixels, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: ModelId
    description: str = ""
    created: int = Field(default=0, ge=0, description="Unix seconds")
    owned_by: str = "framedit"
    license: str = ""
    conditioning: Literal["none", "class", "text"]

    num_frames: int = Field(ge=1, description="the default, and what the model was trained on")
    min_frames: int = Field(default=1, ge=1)
    max_frames: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    fps: int = Field(ge=1, le=60)
    tokens_per_frame: int = Field(default=0, ge=0, description="what costs are counted in; 0: not known")

    num_inference_steps: int = Field(ge=1, description="the default")
    max_inference_steps: int = Field(default=1000, ge=1)
    guidance_scale: float = Field(ge=0, description="the default; 1 is no guidance")
    max_guidance_scale: float = Field(default=20.0, ge=0)
    sampler: str
    samplers: list[str] = Field(min_length=1)

    class_names: list[str] | None = None
    negative_prompt: str = ""
    max_prompt_characters: int = Field(default=1000, ge=1)
    examples: list[str] = []

    @model_validator(mode="after")
    def _defaults_are_within_limits(self) -> Self:
        if not self.min_frames <= self.num_frames <= self.max_frames:
            raise ValueError(f"num_frames {self.num_frames} is not in {self.min_frames}..{self.max_frames}")
        if self.num_inference_steps > self.max_inference_steps:
            raise ValueError(f"num_inference_steps {self.num_inference_steps} is above {self.max_inference_steps}")
        if self.guidance_scale > self.max_guidance_scale:
            raise ValueError(f"guidance_scale {self.guidance_scale} is above {self.max_guidance_scale}")
        if self.sampler not in self.samplers:
            raise ValueError(f"sampler {self.sampler!r} is not one of {', '.join(self.samplers)}")
        if (self.conditioning == "class") != bool(self.class_names):
            raise ValueError("class_names are needed by a class model, and by no other")
        if len(set(self.class_names or ())) != len(self.class_names or ()):
            raise ValueError("class_names name a class twice")
        return self

    @property
    def size(self) -> str:
        """`"WxH"`, as in the API."""
        return f"{self.width}x{self.height}"


def read_card(folder: Path) -> ModelCard:
    """The card of a checkpoint folder.

    :raises InvalidCardError: when there is none, or it cannot be read, or is not a card; names the file and the fields.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidCardError(f"{folder} has no {CARD_FILE}: is it a checkpoint folder?") from None
    except OSError as error:
        raise InvalidCardError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise InvalidCardError(f"{path} is not a model card: {faults}") from None


def write_card(folder: Path, card: ModelCard) -> None:
    """Write `card.json` into an existing folder."""
    (folder / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def announce(redis: Redis, card: ModelCard, worker: str, ttl_seconds: float) -> None:
    """Tell the server that `worker` serves this model. To be repeated well within `ttl_seconds`."""
    workers_key = _WORKERS_KEY.format(model=card.id)
    now = server_time(redis)
    with redis.pipeline() as pipe:
        pipe.hset(_MODELS_KEY, card.id, card.model_dump_json())
        pipe.zremrangebyscore(workers_key, 0, now)
        pipe.zadd(workers_key, {worker: now + ttl_seconds})
        pipe.execute()


def withdraw(redis: Redis, model: str, worker: str) -> None:
    """A worker that leaves says so; the model stays known."""
    redis.zrem(_WORKERS_KEY.format(model=model), worker)


def workers_alive(redis: Redis, model: str) -> set[str]:
    """The names of the workers that have announced this model within their time."""
    names = cast(list[bytes], redis.zrangebyscore(_WORKERS_KEY.format(model=model), f"({server_time(redis)}", "+inf"))
    return {name.decode() for name in names}


def known_models(redis: Redis) -> dict[str, tuple[ModelCard, int]]:
    """Every model that a worker ever announced, by id: its newest card, and how many of its workers are alive."""
    cards = [_parse(raw) for raw in cast(dict[bytes, bytes], redis.hgetall(_MODELS_KEY)).values()]
    now = server_time(redis)
    with redis.pipeline(transaction=False) as pipe:
        for card in cards:
            pipe.zcount(_WORKERS_KEY.format(model=card.id), f"({now}", "+inf")
        counts = pipe.execute()
    return {card.id: (card, count) for card, count in sorted(zip(cards, counts, strict=True), key=lambda p: p[0].id)}


def find_card(redis: Redis, model: str) -> ModelCard | None:
    """The card of one model, None when no worker ever announced it."""
    raw = cast(bytes | None, redis.hget(_MODELS_KEY, model))
    return None if raw is None else _parse(raw)


def _parse(raw: bytes) -> ModelCard:
    # A newer worker may announce fields that this process does not know yet.
    fields = {name: value for name, value in json.loads(raw).items() if name in ModelCard.model_fields}
    return ModelCard.model_validate(fields)
