"""Durations on the command line: `90d`, `24h`, `30m`, `45s`."""

import re

from worker.errors import StartupError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}


def parse_duration(option: str, text: str) -> int:
    """Return a duration in seconds. Raises `StartupError`, which names the option."""
    parts = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if parts is None:
        raise StartupError(f"{option} is {text!r}; give a number and a unit: 45s, 30m, 24h or 90d")
    return int(parts[1]) * _SECONDS[parts[2]]
