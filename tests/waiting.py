"""Waiting for what other processes and threads do."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_for(
    condition: Callable[[], Value], what: str, timeout_seconds: float = 90.0, poll_seconds: float = 0.05
) -> Value:
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(poll_seconds)
    raise AssertionError(f"waited {timeout_seconds:.0f} s in vain: {what}")
