"""The settings as a table or as JSON, each with the source of its value."""

from collections.abc import Iterator
from typing import Any

from jobs.settings_secrets import is_secret, shown
from jobs.settings_sources import ReadSettings, variables


def as_table(*parts: ReadSettings[Any]) -> str:
    """Return one line for each setting: its variable, its value, and the source of the value."""
    rows = [(row["variable"], str(row["value"] or "-"), row["source"]) for _, row in _rows(parts)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows)


def as_dict(*parts: ReadSettings[Any]) -> dict[str, Any]:
    return dict(_rows(parts))


def _rows(parts: tuple[ReadSettings[Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in parts:
        kind = type(part.settings)
        for field, value in part.settings.model_dump(mode="json").items():
            is_plain = isinstance(value, bool | int | float) and not is_secret(kind, field)
            yield (
                field,
                {
                    "variable": variables(kind, field)[0],
                    "value": value if is_plain or value is None else shown(kind, field, value),
                    "source": part.origins[field],
                },
            )
