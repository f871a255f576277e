"""Check of the files in a model folder before a library reads it: libraries name the folder, or nothing."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open

from models.checkpoint.json_file import read_json
from models.checkpoint.reading import reading


def check_files(folder: Path) -> None:
    """Raise ValueError, with the path, for a JSON or safetensors file in `folder` that is damaged."""
    for path in sorted(folder.glob("*.json")):
        read_json(path)
    for path in sorted(folder.glob("*.safetensors")):
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: copy it again")
        with reading(path), safe_open(path, framework="pt"):
            pass
