"""What is still to be told to the webhooks of videos that have ended.

Each receiver has a line of its own, so that one that is slow, or has much to be told, is in nobody's way:
`framedit:webhooks:to:<receiver>` is a sorted set of video ids by when they are due, by Redis's clock, and
`framedit:webhooks` one of the receivers, by when the first of their line is due or before. `jobs/store.py` adds to both
in the script that ends a video. Whoever sends takes what is due for a while, and says what became of it: what is taken
by a process that dies is due again when that while is over. So each webhook is sent at least once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from redis import Redis

WEBHOOKS_KEY = "framedit:webhooks"
_ATTEMPTS_KEY = "framedit:webhooks:attempts"

TAKEN_SECONDS = 60
# After each failure, the schedule that Standard Webhooks proposes: the last attempt is a day after the first.
RETRY_SECONDS = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)

# A receiver is due when the first of its line is; without a line it is none.
_ARRANGE = """
local function arrange(receivers, line, receiver)
  local first = redis.call('ZRANGE', line, 0, 0, 'WITHSCORES')
  if first[1] then redis.call('ZADD', receivers, first[2], receiver)
  else redis.call('ZREM', receivers, receiver) end
end
"""

# KEYS: receivers, attempts. ARGV: how many at most, how many for each receiver, for how long, prefix of the lines, then
# receiver, how many it has already, ... Answers receiver, id, attempt, ...
_TAKE = f"""{_ARRANGE}
local now = tonumber(redis.call('TIME')[1])
local left, has = tonumber(ARGV[1]), {{}}
for i = 5, #ARGV, 2 do has[ARGV[i]] = tonumber(ARGV[i + 1]) end
local taken = {{}}
-- Those that can be given no more are due, too.
local most = left + (#ARGV - 4) / 2
for _, receiver in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now, 'BYSCORE', 'LIMIT', 0, most)) do
  local room = math.min(left, ARGV[2] - (has[receiver] or 0))
  if room > 0 then
    local line = ARGV[4] .. receiver
    for _, id in ipairs(redis.call('ZRANGE', line, '-inf', now, 'BYSCORE', 'LIMIT', 0, room)) do
      redis.call('ZADD', line, now + ARGV[3], id)
      for _, part in ipairs({{receiver, id, redis.call('HINCRBY', KEYS[2], id, 1)}}) do table.insert(taken, part) end
      left = left - 1
    end
    arrange(KEYS[1], line, receiver)
  end
end
return taken
"""

# KEYS: receivers, attempts, line. ARGV: receiver, id, seconds until the next attempt or "" for none.
_SETTLE = f"""{_ARRANGE}
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[3], 'XX', redis.call('TIME')[1] + ARGV[3], ARGV[2])
else
  redis.call('HDEL', KEYS[2], ARGV[2])
  redis.call('ZREM', KEYS[3], ARGV[2])
end
arrange(KEYS[1], KEYS[3], ARGV[1])
"""

# For the script that ends a video.
TELL_RECEIVER = """
local function tell_receiver(receivers, line, receiver, id)
  redis.call('ZADD', line, 0, id)
  redis.call('ZADD', receivers, 0, receiver)
end
"""


@dataclass(frozen=True)
class Due:
    """A webhook to be sent now, to a receiver as `receiver_of` names it. `attempt` counts from 1."""

    receiver: str
    video_id: str
    attempt: int


def receiver_of(webhook_url: str, owner: str | None = None) -> str:
    """Who is told at this URL: its host, with the port where it has one. Many use the same host, of a service that
    passes messages on: each owner of videos has a line of its own there."""
    host = urlsplit(webhook_url).netloc.lower()
    return f"{owner}@{host}" if owner and host else host


def line_key(receiver: str) -> str:
    return f"{WEBHOOKS_KEY}:to:{receiver}"


class Webhooks:
    """All methods raise `RedisError` when Redis is away; what was taken then is due again after a while."""

    def __init__(self, redis: Redis) -> None:
        self._take = redis.register_script(_TAKE)
        self._settle = redis.register_script(_SETTLE)

    def take(self, limit: int, limit_each: int, busy: Mapping[str, int]) -> Sequence[Due]:
        """What is due, and for `TAKEN_SECONDS` the caller's: at most `limit`, and no more for any receiver than
        `limit_each` together with those that the caller has in hand for it already (`busy`)."""
        counts = [part for pair in busy.items() for part in pair]
        arguments = [limit, limit_each, TAKEN_SECONDS, line_key(""), *counts]
        answer = cast(list[bytes], self._take(keys=[WEBHOOKS_KEY, _ATTEMPTS_KEY], args=arguments))
        parts = zip(answer[::3], answer[1::3], answer[2::3], strict=True)
        return [Due(receiver.decode(), raw.decode(), int(attempt)) for receiver, raw, attempt in parts]

    def done(self, due: Due) -> None:
        """It was received, or there is no use in sending it again."""
        self._end(due, "")

    def failed(self, due: Due) -> bool:
        """It is to be sent again, later and later. False when this was the last attempt."""
        if due.attempt > len(RETRY_SECONDS):
            self.done(due)
            return False
        self._end(due, RETRY_SECONDS[due.attempt - 1])
        return True

    def _end(self, due: Due, again_in_seconds: int | str) -> None:
        keys = [WEBHOOKS_KEY, _ATTEMPTS_KEY, line_key(due.receiver)]
        self._settle(keys=keys, args=[due.receiver, due.video_id, again_in_seconds])
