"""A minimal client of server-sent events."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: dict[str, Any]


@contextmanager
def following(http: httpx.Client, video_id: str, last_event_id: str | None = None) -> Iterator[Iterator[Event]]:
    """The events of a video until the server ends the stream."""
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with http.stream("GET", f"/v1/videos/{video_id}/events", headers=headers, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _parse(answer.iter_lines())


def _parse(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        if not line and "event" in fields:
            yield Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
        if not line:
            fields = {}
