"""Whose turn it is: fairness between owners inside one model and priority, whatever each of them has queued.

Deficit round robin over cost, with the round's credit given in the smallest steps: all owners that wait get the same
credit, the one with the most of it left goes next, and is charged the cost of its video. So only two things need be
kept: how much each owner was charged (the turns, a sorted set), and how much was credited to everybody (the level,
which is what the last one served had been charged before). Who comes new starts at the level: time spent away earns
nothing. This is start-time fair queueing (Goyal, Vin and Cheng 1996); between two owners that wait, what they were
served never differs by more than one video of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from redis import Redis
from redis.client import Pipeline

from jobs.records import Priority

_LEVELS_KEY = "framedit:levels"
# The cost of all that waits in a queue.
WAITING_KEY = "framedit:waiting"

# KEYS: turns, levels, waiting. ARGV: the field of levels, the prefix of a queue's key.
# Answers the queue whose turn it is, the job at its head and what it has been charged; an owner who waits no more is
# forgotten on the way, which cannot be before everybody else has been charged as much.
_NEXT = """
local level = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
while true do
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if not first[1] then return false end
  local head = redis.call('LINDEX', ARGV[2] .. first[1], 0)
  if head then return {first[1], head, string.format('%.0f', math.max(tonumber(first[2]), level))} end
  redis.call('ZREM', KEYS[1], first[1])
  redis.call('HDEL', KEYS[3], first[1])
end
"""


@dataclass(frozen=True)
class Turn:
    """The job at the head of `queue` is to be served next; its owner has been charged `charged` before."""

    queue: str
    job_id: str
    charged: int


def turns_key(model: str, priority: Priority) -> str:
    return f"framedit:turns:{model}:{priority}"


def next_turn(redis: Redis, model: str, priority: Priority, prefix: str) -> Turn | None:
    """Whose turn it is among those that wait, None when nobody does. `prefix` and a queue's name are its list's key."""
    script = redis.register_script(_NEXT)
    field = f"{model}:{priority}"
    found = script(keys=[turns_key(model, priority), _LEVELS_KEY, WAITING_KEY], args=[field, prefix])
    return None if found is None else Turn(found[0].decode(), found[1].decode(), int(found[2]))


def join(pipe: Pipeline, model: str, priority: Priority, queue: str) -> None:
    """An owner has something waiting; one who has a place keeps it."""
    pipe.zadd(turns_key(model, priority), {queue: 0}, nx=True)


def charge(pipe: Pipeline, model: str, priority: Priority, turn: Turn, cost: int) -> None:
    """The owner whose turn it was had a video of this cost taken."""
    pipe.zadd(turns_key(model, priority), {turn.queue: turn.charged + cost})
    pipe.hset(_LEVELS_KEY, f"{model}:{priority}", str(turn.charged))


def read_turns(redis: Redis, model: str, priorities: Sequence[Priority]) -> dict[str, float]:
    """What the owners that wait have been charged, by queue: the one with the least goes first."""
    with redis.pipeline(transaction=False) as pipe:
        pipe.hmget(_LEVELS_KEY, [f"{model}:{priority}" for priority in priorities])
        for priority in priorities:
            pipe.zrange(turns_key(model, priority), 0, -1, withscores=True)
        levels, *rings = pipe.execute()
    return {
        name.decode(): max(float(charged), float(level or 0))
        for level, ring in zip(levels, rings, strict=True)
        for name, charged in ring
    }
