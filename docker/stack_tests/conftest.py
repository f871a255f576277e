"""Needs a Docker engine with Compose 2.24 or later, and the images (`make docker-build`)."""

import os
from collections.abc import Iterator

import pytest

from .compose import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    stack = Stack("framedit-test", int(os.environ.get("TEST_PORT", "18000")))
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
