"""Which golden files to run over: those of `--golden-dir`."""

from pathlib import Path

import pytest


def golden_files(config: pytest.Config, *, samplers: bool) -> list[Path]:
    """The model files, or the sampler files, of the chosen folder. An empty folder is an error, not a pass."""
    folder: Path = config.getoption("--golden-dir")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise pytest.UsageError(f"no golden files (*.safetensors) in {folder}")
    return [file for file in files if file.name.startswith("sampler_") == samplers]
