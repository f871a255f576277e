"""The context of log lines: fields such as `request_id` and `video_id` that every line logged meanwhile has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default={})  # noqa: B039  (never changed in place)


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Add fields within the block; fields that are None are left out."""
    token = _fields.set({**_fields.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _fields.reset(token)


def current() -> Mapping[str, str]:
    return _fields.get()
