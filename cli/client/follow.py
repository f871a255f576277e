"""The progress of a video until its end: from its events, or by polling if the server sends none."""

import json
import sys
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import IO, Any

import httpx

from cli.client.api_client import Client, RefusedError, Video

_ENDED = ("completed", "failed")
_RECONNECTS = 3
_PAUSE_SECONDS = 0.5


def follow(client: Client, video_id: str) -> Iterator[dict[str, Any]]:
    """Yield the states of a video; the last one is the complete video, `completed` or `failed`.

    The states before it have `status`, and `queue_position` or `step`, `steps` and `eta_seconds`.
    """
    last_event_id = ""
    for _ in range(_RECONNECTS):
        try:
            for event in client.events(video_id, last_event_id):
                last_event_id = event.id or last_event_id
                state = json.loads(event.data)
                yield state
                if state["status"] in _ENDED:
                    return
        except RefusedError as error:
            if error.status not in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
                raise
            break  # a server without events, or an unknown video: polling shows which
        except httpx.TransportError:
            pass  # reconnect after the last event
        time.sleep(_PAUSE_SECONDS)
    yield from _poll(client, video_id)


def _poll(client: Client, video_id: str) -> Iterator[Video]:
    while True:
        video, pause_seconds = client.get(video_id)
        yield video
        if video["status"] in _ENDED:
            return
        time.sleep(pause_seconds)


class ProgressLine:
    """Prints the states of a video: on a terminal as one line that changes, elsewhere one line for each status."""

    def __init__(self, name: str, out: IO[str] | None = None) -> None:
        self._name = name
        self._out = out or sys.stderr
        self._status = ""

    def show(self, state: dict[str, Any]) -> None:
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{self._name}  {describe_state(state)}")
            self._out.flush()
        elif state["status"] != self._status:
            self._out.write(f"{self._name}  {describe_state(state)}\n")
        self._status = state["status"]

    def end(self) -> None:
        if self._out.isatty() and self._status:
            self._out.write("\n")


def describe_state(state: dict[str, Any]) -> str:
    words = [state["status"].replace("_", " ")]
    if state.get("queue_position"):
        words.append(f"position {state['queue_position']}")
    if state.get("step") is not None:
        words.append(f"step {state['step']} of {state['steps']}")
    elif state["status"] == "in_progress":
        words.append(f"{state['progress']} %")
    if state.get("eta_seconds") is not None:
        words.append(f"about {state['eta_seconds']:.0f} s left")
    return ", ".join(words)
