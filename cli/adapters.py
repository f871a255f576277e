"""Adapters as options of a command: `NAME` or `NAME:SCALE`."""

import json
from collections.abc import Sequence

from jobs.errors import InvalidRequestError


def adapters_field(options: Sequence[str] | None) -> str | None:
    """The field `adapters` of a request, as JSON text. None without options.

    :raises InvalidRequestError: for a scale that is no number.
    """
    return json.dumps([_parse(option) for option in options]) if options else None


def _parse(option: str) -> dict[str, str | float]:
    name, colon, scale = option.partition(":")
    if not colon:
        return {"name": name}
    try:
        return {"name": name, "scale": float(scale)}
    except ValueError:
        raise InvalidRequestError(
            f"--adapter is {option!r}, whose scale is no number; write NAME or NAME:SCALE", "adapters"
        ) from None
