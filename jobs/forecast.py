"""When a video's turn comes and when it will be done: from what waits, what that costs, and how fast the workers are.

An estimate: it takes what is queued now and the speeds measured lately; it knows nothing of what comes or is cancelled.
Costs are in the unit of `jobs/cost.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from jobs import queue
from jobs.loads import Load, read_loads
from jobs.records import VideoRecord
from jobs.turns import WAITING_KEY, read_turns


@dataclass(frozen=True)
class Forecast:
    """`queue_position` 1 is next, None once started. Seconds are None as long as no worker has measured itself."""

    queue_position: int | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True)
class Line:
    """One queue: how much waits in it. Queues of a lower `rank` are served before; of the same rank, in turn, the one
    that was `charged` less before the other."""

    name: str
    rank: int
    length: int
    cost: float
    charged: float = 0.0


@dataclass(frozen=True)
class Ahead:
    """What goes before a video: how many, and what they cost."""

    count: int
    cost: float

    def followed_by(self, records: Sequence[VideoRecord]) -> "Ahead":
        return Ahead(self.count + len(records), self.cost + sum(record.cost for record in records))


@dataclass(frozen=True)
class Outlook:
    """The queues of one model and the workers, as they are now. `backlog` is the cost that waits of every model."""

    model: str
    lines: Sequence[Line]
    loads: Mapping[str, Load]
    backlog: Mapping[str, float]

    def ahead(self, name: str, index: int) -> Ahead:
        """What goes before the video that is, or would be, at `index` (from 0) of the queue `name`."""
        mine = next((line for line in self.lines if line.name == name), Line(name, queue.parse_name(name)[1], 0, 0))
        counts = [(line, _served_before(line, mine, index)) for line in self.lines]
        cost = sum(line.cost * count / line.length for line, count in counts if count)
        return Ahead(sum(count for _, count in counts), cost)

    def rate(self, model: str | None = None) -> float:
        """Cost per second of all workers that serve the model; 0 when none has measured it."""
        return sum(load.cost_per_second.get(model or self.model, 0.0) for load in self.loads.values())

    def running(self, model: str | None = None) -> float:
        """The cost that is left of what the workers have taken."""
        left = (remaining for load in self.loads.values() for remaining in load.remaining.values())
        return sum(remaining.cost for remaining in left if remaining.model == (model or self.model))

    def wait_seconds(self, ahead: Ahead) -> float | None:
        """Until a video behind `ahead` gets a seat."""
        if not ahead.count and any(load.free_seats for load in self._serving()):
            return 0.0
        return self._seconds(ahead.cost + self._until_a_seat())

    def eta_seconds(self, ahead: Ahead, cost: float) -> float | None:
        """Until a video of this cost behind `ahead` is done: its file, which is made beside the next ones."""
        denoised = self._seconds(ahead.cost + self.running() + cost)
        return None if denoised is None else denoised + self._finishing_seconds()

    def running_eta_seconds(self, record: VideoRecord) -> float | None:
        """Until a video that is in progress is done, its worker sharing its time between all that it has."""
        load = self.loads.get(record.worker or "")
        if load is None or self.model not in load.cost_per_second:
            return None
        own = record.cost * (1 - record.step / max(1, record.steps)) / load.cost_per_second[self.model]
        others = (left for video_id, left in load.remaining.items() if video_id != record.id)
        shared = sum(min(own, left.cost / load.cost_per_second.get(left.model, float("inf"))) for left in others)
        return own + shared + load.finishing_seconds.get(self.model, 0.0)

    def _until_a_seat(self) -> float:
        """The cost until the worker's video that is nearest to its end leaves its seat: all of them go on till then."""
        left = [remaining.cost for load in self._serving() for remaining in load.remaining.values()]
        return len(left) * min(left, default=0.0)

    def _serving(self) -> list[Load]:
        return [load for load in self.loads.values() if self.model in load.cost_per_second]

    def _seconds(self, cost: float) -> float | None:
        """For this model's work, and for what workers do of other models meanwhile: models take turns."""
        rate = self.rate()
        if not rate:
            return None
        seconds = cost / rate
        others = {model for load in self._serving() for model in load.cost_per_second} - {self.model}
        return seconds + sum(min(seconds, self._backlog_seconds(model)) for model in others)

    def _finishing_seconds(self) -> float:
        """Of the workers' mean; 0 while none has finished a video of this model."""
        known = [seconds for load in self._serving() if (seconds := load.finishing_seconds.get(self.model)) is not None]
        return sum(known) / len(known) if known else 0.0

    def _backlog_seconds(self, model: str) -> float:
        return (self.backlog.get(model, 0.0) + self.running(model)) / (self.rate(model) or float("inf"))


def _served_before(line: Line, mine: Line, index: int) -> int:
    """How many of `line` are served before the one at `index` of `mine`."""
    if line.rank != mine.rank:
        return line.length if line.rank < mine.rank else 0
    if line.name == mine.name:
        return min(line.length, index)
    goes_first = (line.charged, line.name) < (mine.charged, mine.name)
    return min(line.length, index + goes_first)


def read_outlook(redis: Redis, model: str) -> Outlook:
    """How it looks for this model now."""
    waiting = {name.decode(): int(cost) for name, cost in cast(dict[bytes, bytes], redis.hgetall(WAITING_KEY)).items()}
    backlog: dict[str, float] = {}
    for name, cost in waiting.items():
        backlog[queue.parse_name(name)[0]] = backlog.get(queue.parse_name(name)[0], 0.0) + max(0, cost)
    names = [name for name in waiting if queue.parse_name(name)[0] == model]
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(queue.PREFIX + name)
        lengths = pipe.execute() if names else []
    charged = read_turns(redis, model, queue.PRIORITIES) if len(names) > 1 else {}
    lines = [
        Line(name, queue.parse_name(name)[1], length, max(0, waiting[name]), charged.get(name, 0.0))
        for name, length in zip(names, lengths, strict=True)
    ]
    return Outlook(model, lines, read_loads(redis), backlog)


def forecast(redis: Redis, records: Sequence[VideoRecord]) -> dict[str, Forecast]:
    """What is to be said of those records that have not ended, by id."""
    unfinished = [record for record in records if record.status in ("queued", "in_progress")]
    outlooks = {model: read_outlook(redis, model) for model in {record.request.model for record in unfinished}}
    places = _places(redis, [record for record in unfinished if record.status == "queued"])
    return {
        record.id: forecast_of(outlooks[record.request.model], record, places.get(record.id)) for record in unfinished
    }


def forecast_of(outlook: Outlook, record: VideoRecord, index: int | None) -> Forecast:
    """What is to be said of a record that has not ended, and waits at `index` of its own queue."""
    if record.status == "in_progress":
        return Forecast(None, _rounded(outlook.running_eta_seconds(record)))
    if index is None:  # on its way from the queue to a worker
        return Forecast()
    ahead = outlook.ahead(queue.name_of(record), index)
    return Forecast(ahead.count + 1, _rounded(outlook.eta_seconds(ahead, record.cost)))


def _places(redis: Redis, waiting: Sequence[VideoRecord]) -> dict[str, int | None]:
    """The index of each in its own queue."""
    if not waiting:
        return {}
    with redis.pipeline(transaction=False) as pipe:
        for record in waiting:
            pipe.lpos(queue.queue_key(record), record.id)
        return dict(zip((record.id for record in waiting), pipe.execute(), strict=True))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
