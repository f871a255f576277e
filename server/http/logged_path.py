"""The path of a request, escaped for a log line."""

_MAX_CHARACTERS = 200


def logged_path(path: str) -> str:
    """Escape and shorten a decoded path: a client can put line breaks, terminal escapes and any length into it."""
    escaped = path[:_MAX_CHARACTERS].encode("unicode_escape").decode("ascii")
    return escaped if len(path) <= _MAX_CHARACTERS else f"{escaped}... ({len(path)} characters)"
