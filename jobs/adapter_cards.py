"""Adapter cards: the `card.json` of an adapter folder, which workers announce with the card of its model."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import InvalidCardError

CARD_FILE = "card.json"
MAX_SCALE = 10.0
MAX_ADAPTERS = 4
_MAX_CARD_BYTES = 1 << 16

AdapterName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
AdapterScale = Annotated[float, Field(ge=-MAX_SCALE, le=MAX_SCALE, allow_inf_nan=False)]


class AdapterCard(BaseModel):
    """The properties of an adapter.

    Attributes:
        name: The name of its folder.
        model: Id of the base model, for which it was trained.
        scale: Multiplies the adapter where a request gives no scale.
        trigger_words: Words of a prompt with which it was trained.
    """

    model_config = ConfigDict(frozen=True)

    name: AdapterName
    model: str
    description: str = Field(default="", max_length=1000)
    scale: AdapterScale = 1.0
    trigger_words: list[Annotated[str, Field(max_length=100)]] = Field(default=[], max_length=100)


class _CardFile(AdapterCard):
    """A card as it is in a file, where a mistyped field is an error."""

    model_config = ConfigDict(extra="forbid")


def read_adapter_card(folder: Path, default_model: str | None) -> AdapterCard:
    """The card of an adapter folder. Its name is that of the folder, and without a model it is for `default_model`.

    :raises InvalidCardError: when the card cannot be read or is not a card, or no model is known.
    """
    path = folder / CARD_FILE
    fields = _read_fields(path)
    model = fields.pop("model", None) or default_model
    if model is None:
        raise InvalidCardError(f'{folder} does not say its model: write {CARD_FILE} with {{"model": "..."}}')
    try:
        card = _CardFile.model_validate(fields | {"name": folder.name, "model": model})
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'card'}: {e['msg']}" for e in error.errors())
        raise InvalidCardError(f"{path} is not an adapter card: {faults}") from None
    return AdapterCard(**card.model_dump())


def _read_fields(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.is_symlink():  # a pipe would block, and a link can lead to any file
        return {}
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_CARD_BYTES + 1)
        fields = json.loads(content)
    except OSError as error:
        raise InvalidCardError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise InvalidCardError(f"{path} is not valid JSON of at most {_MAX_CARD_BYTES} bytes") from None
    if not isinstance(fields, dict):
        raise InvalidCardError(f"{path} is not a JSON object")
    return fields
