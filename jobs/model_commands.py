"""Commands of an operator to the workers of a model: load, unload, pin. Workers read them at each beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from redis import Redis

from jobs import redis_keys

Action = Literal["load", "unload"]


@dataclass(frozen=True)
class ModelCommand:
    """The last command for a model.

    Attributes:
        number: Counts the commands, so that a worker executes each of them once.
        action: None when there was no command.
        pinned: Whether workers keep the model in memory.
    """

    number: int = 0
    action: Action | None = None
    pinned: bool = False


def send_command(redis: Redis, model: str, action: Action) -> None:
    """Make every worker that serves the model load it, or unload it once its running videos are denoised."""
    key = redis_keys.model_command(model)
    with redis.pipeline() as pipe:
        pipe.hincrby(key, "number", 1)
        pipe.hset(key, "action", action)
        pipe.execute()


def pin_model(redis: Redis, model: str, pinned: bool) -> None:
    """Make every worker that serves the model load it and keep it in memory, or end that."""
    redis.hset(redis_keys.model_command(model), "pinned", int(pinned))


def read_commands(redis: Redis, models: Sequence[str]) -> Mapping[str, ModelCommand]:
    """Return the last command for each of the models."""
    with redis.pipeline(transaction=False) as pipe:
        for model in models:
            pipe.hgetall(redis_keys.model_command(model))
        answers = cast(list[dict[bytes, bytes]], pipe.execute())
    return {model: _parse(fields) for model, fields in zip(models, answers, strict=True)}


def _parse(fields: Mapping[bytes, bytes]) -> ModelCommand:
    action = fields.get(b"action", b"").decode()
    return ModelCommand(
        number=int(fields.get(b"number", 0)),
        action=cast(Action, action) if action in ("load", "unload") else None,
        pinned=fields.get(b"pinned") == b"1",
    )
