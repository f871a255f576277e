"""Reading the JSON files of checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises ValueError, with the path, if there is none."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # broken JSON, or text of another encoding
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}: a JSON object is expected")
    return content
