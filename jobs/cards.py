"""Model cards: the `card.json` of a checkpoint folder, which workers announce to the server."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from redis import Redis

from jobs import redis_keys
from jobs.adapter_cards import AdapterCard
from jobs.connection import server_time
from jobs.errors import InvalidCardError
from jobs.speed_plans import SPEED_PLANS_FILE, SpeedPlan, read_speed_plans

CARD_FILE = "card.json"

ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class ModelCard(BaseModel):
    """The properties of a model that the server needs to validate a request; sizes in pixels, times in seconds."""

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
    trained_frames: int | None = Field(
        default=None, ge=1, description="longer videos are made in overlapping windows of so many frames"
    )
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
    clean_caption: bool = Field(default=False, description="the default: prompts are cleaned as in Latte's pipeline")
    max_prompt_characters: int = Field(default=1000, ge=1)
    examples: list[str] = []
    adapters: list[AdapterCard] = Field(default=[], description="the adapters that a request can name")
    speed_plans: list[SpeedPlan] = Field(default=[], description="see docs/speed.md; from speed_plans.json")

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

    def is_guided(self, guidance_scale: float) -> bool:
        """Whether a request with this scale runs with guidance, which takes two rows of the batch.

        Text models run without it at 1 and below, as published.
        """
        if self.conditioning == "none":
            return False
        return guidance_scale > 1 if self.conditioning == "text" else guidance_scale != 1

    @property
    def frames_per_row(self) -> int:
        """The most frames of one row of the batch."""
        return self.trained_frames or self.max_frames

    @property
    def size(self) -> str:
        """`"WxH"`, as in the API."""
        return f"{self.width}x{self.height}"


def read_card(folder: Path) -> ModelCard:
    """Return the card of a checkpoint folder, with its speed plans.

    :raises InvalidCardError: when there is none, or it cannot be read, or is not a card; names the file and the fields.
    """
    path = folder / CARD_FILE
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
        path = folder / SPEED_PLANS_FILE
        return card.model_copy(update={"speed_plans": read_speed_plans(folder)})
    except FileNotFoundError:
        raise InvalidCardError(f"{folder} has no {CARD_FILE}: is it a checkpoint folder?") from None
    except OSError as error:
        raise InvalidCardError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        kind = "a model card" if path.name == CARD_FILE else "a list of speed plans"
        raise InvalidCardError(f"{path} is not {kind}: {faults}") from None


def write_card(folder: Path, card: ModelCard) -> None:
    """Write `card.json` into an existing folder."""
    stored = card.model_dump_json(indent=2, exclude={"adapters", "speed_plans"})
    (folder / CARD_FILE).write_text(stored + "\n", encoding="utf-8")


def announce(redis: Redis, card: ModelCard, worker: str, ttl_seconds: float) -> None:
    """Announce that `worker` serves this model. Repeat it well within `ttl_seconds`."""
    workers_key = redis_keys.workers(card.id)
    now = server_time(redis)
    with redis.pipeline() as pipe:
        pipe.hset(redis_keys.MODELS, card.id, card.model_dump_json())
        pipe.zremrangebyscore(workers_key, 0, now)
        pipe.zadd(workers_key, {worker: now + ttl_seconds})
        pipe.execute()


def withdraw(redis: Redis, model: str, worker: str) -> None:
    """End the announcement of one worker; the model stays known."""
    redis.zrem(redis_keys.workers(model), worker)


def workers_alive(redis: Redis, model: str) -> set[str]:
    """Return the names of the workers whose announcement of this model has not expired."""
    names = cast(list[bytes], redis.zrangebyscore(redis_keys.workers(model), f"({server_time(redis)}", "+inf"))
    return {name.decode() for name in names}


def known_models(redis: Redis) -> dict[str, tuple[ModelCard, int]]:
    """Return every model that a worker ever announced, by id: its newest card and the number of its live workers."""
    cards = [_parse(raw) for raw in cast(dict[bytes, bytes], redis.hgetall(redis_keys.MODELS)).values()]
    now = server_time(redis)
    with redis.pipeline(transaction=False) as pipe:
        for card in cards:
            pipe.zcount(redis_keys.workers(card.id), f"({now}", "+inf")
        counts = pipe.execute()
    return {card.id: (card, count) for card, count in sorted(zip(cards, counts, strict=True), key=lambda p: p[0].id)}


def find_card(redis: Redis, model: str) -> ModelCard | None:
    """Return the card of one model, None when no worker ever announced it."""
    raw = cast(bytes | None, redis.hget(redis_keys.MODELS, model))
    return None if raw is None else _parse(raw)


def _parse(raw: bytes) -> ModelCard:
    # A newer worker may announce fields that this process does not know yet.
    fields = {name: value for name, value in json.loads(raw).items() if name in ModelCard.model_fields}
    return ModelCard.model_validate(fields)
