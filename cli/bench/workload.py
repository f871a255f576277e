"""The requests of a load, drawn from prompts and mixes with one seed."""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.bench.mix import Mix
from jobs.errors import InvalidRequestError

Fields = dict[str, Any]
Model = Mapping[str, Any]

_MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Workload:
    """Draws request bodies: one of `inputs`, with a value of each mix. The same seed draws the same bodies."""

    model: str
    inputs: Sequence[Fields]
    mixes: Mapping[str, Mix] = field(default_factory=dict)
    seed: int = 0

    def bodies(self) -> Iterator[Fields]:
        """Yield bodies without end."""
        rng = random.Random(self.seed)
        while True:
            mixed = {name: _typed(mix.draw(rng)) for name, mix in self.mixes.items()}
            yield {"model": self.model, "seed": rng.randint(0, _MAX_SEED), **rng.choice(self.inputs), **mixed}

    def group(self, body: Fields) -> str:
        """Describe the drawn values of the fields that vary, such as `num_inference_steps 20, priority high`."""
        return ", ".join(f"{name} {body[name]}" for name, mix in self.mixes.items() if len(mix.weights) > 1)


def choose_model(models: Sequence[Model], name: str | None) -> Model:
    """Return the model with this name, or the only one.

    Raises:
        InvalidRequestError: When there is none, or when several models leave the choice open.
    """
    found = [model for model in models if name in (None, model["id"])]
    if len(found) == 1:
        return found[0]
    served = ", ".join(model["id"] for model in models) or "none"
    problem = "choose one with --model" if name is None else f"there is no model {name!r}"
    raise InvalidRequestError(f"{problem}; the models of the server are: {served}")


def read_inputs(path: Path) -> list[Fields]:
    """Read a file of prompts, one a line; of a `.jsonl` file each line is an object with the fields of a request.

    Raises:
        InvalidRequestError: When the file cannot be read, is empty, or a line is not an object.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    parse = _object if path.suffix == ".jsonl" else lambda line, place: {"prompt": line}
    inputs = [parse(line, f"line {number} of {path}") for number, line in enumerate(lines, 1) if line]
    if not inputs:
        raise InvalidRequestError(f"{path} has no prompts: write one a line")
    return inputs


def inputs_of(model: Model) -> list[Fields]:
    """The example prompts of a model, or its classes.

    Raises:
        InvalidRequestError: When the model's description has neither.
    """
    if model.get("class_names"):
        return [{"class_label": name} for name in model["class_names"]]
    if model.get("examples"):
        return [{"prompt": prompt} for prompt in model["examples"]]
    if model.get("conditioning") == "none":
        return [{}]
    raise InvalidRequestError(f"the server names no example prompts for {model.get('id', 'its model')}: give --prompts")


def _object(line: str, place: str) -> Fields:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidRequestError(f'{place} is not a JSON object such as {{"prompt": "a red circle"}}')
    return value


def _typed(value: str) -> str | int:
    return int(value) if value.isdecimal() else value
