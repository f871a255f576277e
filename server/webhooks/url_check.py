"""Checks of the webhook URLs that clients choose. The addresses behind them are checked again at every attempt."""

from jobs.errors import InvalidRequestError
from jobs.settings import Settings
from server.http.ssrf_guard import is_public, split_url


def check_webhook_url(url: str | None, settings: Settings) -> None:
    """:raises InvalidRequestError: when this server sends no webhooks, or none to such a URL."""
    if url is None:
        return
    if settings.webhook_secret is None:
        raise InvalidRequestError(
            "this server sends no webhooks, because its setting FRAMEDIT_WEBHOOK_SECRET, which signs them, is missing",
            "webhook_url",
        )
    parts = split_url(url)
    if parts is None or parts.fragment:
        raise InvalidRequestError(
            f"webhook_url is {url[:100]!r}; it must be http://host/path or https://host/path, in ASCII, "
            "without user name or fragment",
            "webhook_url",
        )
    if not settings.webhook_allow_private and _is_private_literal(parts.hostname or ""):
        raise InvalidRequestError(f"webhook_url is {url[:100]!r}; its host must be a public address", "webhook_url")


def _is_private_literal(host: str) -> bool:
    try:
        return not is_public(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
