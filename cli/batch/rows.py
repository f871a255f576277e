"""The rows of a file of requests: read and checked before the first is sent."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.cards import ModelCard
from jobs.errors import InvalidRequestError
from server.request_body import Fields
from server.request_fields import parse
from server.validation import resolve
from server.wire import CreateOneVideo


@dataclass(frozen=True)
class Row:
    """The request of one video. `number` counts the rows from 1, `line` is where it stands in the file."""

    number: int
    line: int
    fields: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """A hash of the request: a row that was changed is another request."""
        return hashlib.sha256(json.dumps(self.fields, sort_keys=True).encode()).hexdigest()[:16]


def read_rows(path: Path, defaults: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Read a file of requests: JSON objects in a `.jsonl`, a table with a head in a `.csv`, else a prompt in each line.

    Args:
        defaults: Fields of rows that do not have them.
        models: The models of the server, whose limits the rows must keep.

    :raises InvalidRequestError: for a file that cannot be read, or a row that is not valid; it names the line.
    """
    cards = {str(model["id"]): ModelCard.model_validate(_card_fields(model)) for model in models}
    rows: list[Row] = []
    for line, values, typed in _read(path):
        try:
            body = parse(CreateOneVideo, Fields(dict(defaults) | values, typed))
            if body.model is not None and body.model not in cards:
                raise InvalidRequestError(f"model is {body.model!r}; the server has {', '.join(cards) or 'none'}")
            if body.model is not None:
                resolve(body, cards[body.model])
        except InvalidRequestError as error:
            raise InvalidRequestError(f"line {line} of {path}: {error.message}", error.param) from None
        rows.append(Row(len(rows) + 1, line, body.model_dump(mode="json", exclude_unset=True)))
    if not rows:
        raise InvalidRequestError(f"{path} has no rows: write one request in each line")
    return rows


def _read(path: Path) -> Iterator[tuple[int, dict[str, Any], bool]]:
    """Yield the line, the fields, and whether their values have types."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix.lower() == ".csv":
        for line, values in _table(path, text):
            yield line, values, False
        return
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        if path.suffix.lower() == ".jsonl":
            yield line, _object(path, line, content), True
        else:
            yield line, {"prompt": content.strip()}, True


def _table(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        for cells in reader:
            if not any(cells):
                continue
            if len(cells) > len(head):
                raise InvalidRequestError(
                    f"line {reader.line_num} of {path} has {len(cells)} cells; its head names {len(head)} columns"
                )
            yield reader.line_num, {name: cell for name, cell in zip(head, cells, strict=False) if cell}
    except csv.Error as error:
        raise InvalidRequestError(f"line {reader.line_num} of {path} is not CSV: {error}") from None


def _object(path: Path, line: int, content: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequestError(f'line {line} of {path} is not a JSON object such as {{"prompt": "a red circle"}}')
    return {name: field for name, field in value.items() if field is not None}


def _card_fields(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name in ModelCard.model_fields}
