"""When webhooks are due: once the video has ended, and again after each failed attempt.

Each receiver has a sorted set of its own, the ids of videos by due time, so that a slow receiver delays no other. One
sorted set holds the receivers, by the due time of their first webhook or earlier. Times are by Redis's clock. The
script that ends a video makes its webhook due. A sender takes due webhooks for a while and reports the results; those
that a dead sender has taken become due again after that while. So each webhook is sent at least once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from redis import Redis

from jobs import redis_keys
from jobs.lua import ALLOW_OOM, read_lua

SENDING_SECONDS = 60
# The delay after each failed attempt, as Standard Webhooks proposes: the last attempt is a day after the first.
RETRY_SECONDS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)

SCHEDULE_WEBHOOK = read_lua(__file__, "schedule_webhook")
_TAKE = ALLOW_OOM + read_lua(__file__, "update_receiver", "take_webhooks")
_SETTLE = ALLOW_OOM + read_lua(__file__, "update_receiver", "settle_webhook")


@dataclass(frozen=True)
class Due:
    """A webhook to send now, to a receiver as `receiver_of` names it. `attempt` counts from 1."""

    receiver: str
    video_id: str
    attempt: int


def receiver_of(webhook_url: str, owner: str | None = None) -> str:
    """Return the receiver of a URL: its host and port, spelled in one way, for each owner of videos.

    Owners are told apart because many of them may use the same host, of a service that forwards messages.
    """
    parts = urlsplit(webhook_url)
    if parts.hostname is None:
        return ""
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    host = f"{parts.hostname.rstrip('.')}:{port}"
    return f"{owner}@{host}" if owner else host


class Webhooks:
    """All methods raise `RedisError` when Redis does not answer; webhooks that were taken become due again later."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)
        self._settle = redis.register_script(_SETTLE)

    def take(
        self, limit: int, limit_per_receiver: int, limit_per_owner: int, sending: Mapping[str, int]
    ) -> Sequence[Due]:
        """Take webhooks that are due, for `SENDING_SECONDS`, the longest due first.

        Args:
            limit: Of this call.
            limit_per_receiver, limit_per_owner: Include those that the caller is sending already.
            sending: How many webhooks the caller is sending, by receiver.
        """
        counts = [part for pair in sending.items() for part in pair]
        prefix = redis_keys.webhooks_to("")
        arguments = [limit, limit_per_receiver, limit_per_owner, SENDING_SECONDS, prefix, *counts]
        keys = [redis_keys.WEBHOOKS, redis_keys.WEBHOOK_ATTEMPTS]
        answer = cast(list[bytes], self._take(keys=keys, args=arguments))
        parts = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return [Due(receiver.decode(), raw.decode(), int(attempt)) for receiver, raw, attempt in parts]

    def done(self, due: Due) -> None:
        """End a webhook that was received, or that is not worth another attempt."""
        self._end(due, "")

    def failed(self, due: Due) -> bool:
        """Schedule the next attempt, with a growing delay. False when this was the last attempt."""
        if due.attempt > len(RETRY_SECONDS):
            self.done(due)
            return False
        self._end(due, RETRY_SECONDS[due.attempt - 1])
        return True

    def _end(self, due: Due, again_in_seconds: int | str) -> None:
        keys = [redis_keys.WEBHOOKS, redis_keys.WEBHOOK_ATTEMPTS, redis_keys.webhooks_to(due.receiver)]
        self._settle(keys=keys, args=[due.receiver, due.video_id, again_in_seconds])
