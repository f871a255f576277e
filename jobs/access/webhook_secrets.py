"""The secrets that sign webhooks: one for each API key, derived from the server's own.

A shared secret would let each owner forge webhooks to all others. While the server's secret is rotated, two are valid,
and each webhook carries a signature by both.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence

from jobs.settings import secret_bytes

_PREFIX = "whsec_"


class WebhookSecrets:
    """The secrets of every owner, from the server's secret and, during a rotation, from the previous one."""

    def __init__(self, current: str, previous: str | None = None) -> None:
        self._masters = [secret_bytes(secret) for secret in (current, previous) if secret is not None]

    def of(self, owner: str | None) -> Sequence[bytes]:
        """Return the secrets of an API key, or without one the server's own; the current one first."""
        return [_derive(master, owner) if owner is not None else master for master in self._masters]

    def shown(self, owner: str) -> Sequence[str]:
        """Return the secrets of an API key as its owner gives them to a receiver."""
        return [_PREFIX + base64.b64encode(secret).decode() for secret in self.of(owner)]


def _derive(master: bytes, owner: str) -> bytes:
    return hmac.new(master, f"framedit webhook {owner}".encode(), hashlib.sha256).digest()
