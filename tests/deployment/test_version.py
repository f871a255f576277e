"""Files that repeat the version of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "pattern", "count"),
    [
        ("docker/server.Dockerfile", r"ARG VERSION=(\S+)", 1),
        ("docker/worker.Dockerfile", r"ARG VERSION=(\S+)", 1),
        ("kubernetes/framedit.yml", r"image: framedit-\w+:([\d.]+)", 2),
    ],
)
def test_the_version_is_that_of_the_project(file: str, pattern: str, count: int) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.findall(pattern, (ROOT / file).read_text()) == [version] * count
