"""What the work at hand is about: fields like `request_id` and `video_id`, which each logged line has."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default={})  # noqa: B039  (never changed in place)


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Add fields, those that are not None, for as long as the block lasts."""
    token = _fields.set({**_fields.get(), **{name: value for name, value in fields.items() if value is not None}})
    try:
        yield
    finally:
        _fields.reset(token)


def current() -> Mapping[str, str]:
    return _fields.get()
