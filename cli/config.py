"""`framedit config`: the settings in force."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic_settings import BaseSettings

from jobs.effective import Effective, is_secret, shown, variables


def as_table(*parts: Effective[Any]) -> str:
    """A line for each setting: its variable, its value, and where that is from."""
    rows = [(row["variable"], str(row["value"] or "-"), row["source"]) for row in _rows(parts)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows)


def as_json(*parts: Effective[Any]) -> str:
    return json.dumps({row.pop("name"): row for row in _rows(parts)}, indent=2)


def _rows(parts: tuple[Effective[Any], ...]) -> Iterator[dict[str, Any]]:
    for part in parts:
        kind = type(part.settings)
        assert issubclass(kind, BaseSettings)
        plain = part.settings.model_dump(mode="json")
        for field, value in plain.items():
            is_plain = isinstance(value, bool | int | float) and not is_secret(kind, field)
            yield {
                "name": field,
                "variable": variables(kind, field)[0],
                "value": value if is_plain or value is None else shown(kind, field, value),
                "source": part.sources[field],
            }
