"""What is still to be told to the webhooks of videos that have ended.

`framedit:webhooks` is a sorted set of video ids by when they are due, by Redis's clock; `jobs/store.py` adds to it in
the script that ends a video. Whoever sends takes what is due for a while, and says what became of it: what is taken by
a process that dies is due again when that while is over. So each webhook is sent at least once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

WEBHOOKS_KEY = "framedit:webhooks"
_ATTEMPTS_KEY = "framedit:webhooks:attempts"

TAKEN_SECONDS = 60
# After each failure, the schedule that Standard Webhooks proposes: the last attempt is a day after the first.
RETRY_SECONDS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)

# KEYS: due, attempts. ARGV: how many at most, for how long. Answers id, attempt, id, attempt, ...
_TAKE = """
local now = tonumber(redis.call('TIME')[1])
local taken = {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, ARGV[1])) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], id)
  table.insert(taken, id)
  table.insert(taken, redis.call('HINCRBY', KEYS[2], id, 1))
end
return taken
"""

# KEYS: due, attempts. ARGV: id, seconds until the next attempt or "" for none.
_SETTLE = """
if ARGV[2] ~= '' then
  return redis.call('ZADD', KEYS[1], 'XX', redis.call('TIME')[1] + ARGV[2], ARGV[1])
end
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""


@dataclass(frozen=True)
class Due:
    """A webhook to be sent now. `attempt` counts from 1."""

    video_id: str
    attempt: int


class Webhooks:
    """All methods raise `RedisError` when Redis is away; what was taken then is due again after a while."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)
        self._settle = redis.register_script(_SETTLE)

    def take(self, limit: int) -> Sequence[Due]:
        """What is due, and for `TAKEN_SECONDS` the caller's."""
        answer = cast(list[bytes], self._take(keys=[WEBHOOKS_KEY, _ATTEMPTS_KEY], args=[limit, TAKEN_SECONDS]))
        return [Due(raw.decode(), int(attempt)) for raw, attempt in zip(answer[::2], answer[1::2], strict=True)]

    def done(self, due: Due) -> None:
        """It was received, or there is no use in sending it again."""
        self._settle(keys=[WEBHOOKS_KEY, _ATTEMPTS_KEY], args=[due.video_id, ""])

    def failed(self, due: Due) -> bool:
        """It is to be sent again, later and later. False when this was the last attempt."""
        if due.attempt > len(RETRY_SECONDS):
            self.done(due)
            return False
        self._settle(keys=[WEBHOOKS_KEY, _ATTEMPTS_KEY], args=[due.video_id, RETRY_SECONDS[due.attempt - 1]])
        return True
