"""Cases of one client. This module runs in the clients' own environment and imports nothing of the project."""

import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

URL = os.environ.get("INTEROP_URL", "")
MODEL = os.environ.get("INTEROP_MODEL", "")
PROMPT = "a red circle moving right on a black background"
NUM_STEPS = 2


@dataclass(frozen=True)
class Case:
    """One use of a client. `run` raises when it does not work, and returns what it saw.

    A case that `may_be_refused` may also end with an error of the client itself, or an error 4xx of the server with a
    message.
    """

    name: str
    run: Callable[[], object]
    may_be_refused: bool = False


def run_cases(cases: Sequence[Case]) -> None:
    """Run the cases and print each result as a line of JSON."""
    for case in cases:
        print(json.dumps({"case": case.name} | _result(case)), flush=True)


def _result(case: Case) -> dict[str, str]:
    try:
        return {"outcome": "works", "detail": _one_line(case.run())}
    except Exception as error:
        if case.may_be_refused and _is_clear(error):
            return {"outcome": "refused", "detail": _one_line(message_of(error))}
        traceback.print_exc(file=sys.stderr)
        return {"outcome": "FAILS", "detail": _one_line(f"{type(error).__name__}: {error}")}


def message_of(error: Exception) -> str:
    """The server's message where the client keeps it, else the client's."""
    body: Any = getattr(error, "body", None)
    return str(body["message"]) if isinstance(body, dict) and "message" in body else str(error)


def _is_clear(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    return bool(message_of(error)) and (status is None or int(status) < HTTPStatus.INTERNAL_SERVER_ERROR)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def require_mp4(content: bytes) -> str:
    """Raise `AssertionError` unless these are the bytes of an MP4."""
    assert content[4:8] == b"ftyp", content[:40]
    return f"{len(content)} bytes"
