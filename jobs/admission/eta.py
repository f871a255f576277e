"""Estimated waits and ends, from the waiting cost, the speed of the workers, and what they have in progress.

An estimate takes the queues and the measured speeds as they are; it knows nothing of videos that will come or be
cancelled. Costs are in the unit of `jobs/admission/cost.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis

from jobs import redis_keys
from jobs.admission.worker_load import WorkerLoad, read_loads
from jobs.queue.fair_share import read_virtual_times
from jobs.queue.transitions import queue_of
from jobs.videos.record import PRIORITIES, VideoRecord


@dataclass(frozen=True)
class Forecast:
    """`queue_position` 1 is next, None once started. `eta_seconds` is None while no worker has measured its speed."""

    queue_position: int | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True)
class WaitingQueue:
    """One queue: the number and the cost of its waiting videos.

    Queues of a lower `rank` are served first; of the same rank, the queue with the least `virtual_time`.
    """

    name: str
    rank: int
    length: int
    cost: float
    virtual_time: float = 0.0


@dataclass(frozen=True)
class VideosBefore:
    """The videos that are served before another: their number and their cost."""

    count: int
    cost: float

    def and_then(self, records: Sequence[VideoRecord]) -> "VideosBefore":
        return VideosBefore(self.count + len(records), self.cost + sum(record.cost for record in records))


@dataclass(frozen=True)
class QueueState:
    """The queues of one model and the load of all workers. `backlog` is the waiting cost by model, of all models."""

    model: str
    queues: Sequence[WaitingQueue]
    loads: Mapping[str, WorkerLoad]
    backlog: Mapping[str, float]

    def before(self, name: str, index: int) -> VideosBefore:
        """Return the videos before the one that is, or would be, at `index` (from 0) of the queue `name`."""
        own = next((queue for queue in self.queues if queue.name == name), WaitingQueue(name, _rank(name), 0, 0))
        counts = [(queue, _num_served_before(queue, own, index)) for queue in self.queues]
        cost = sum(queue.cost * count / queue.length for queue, count in counts if count)
        return VideosBefore(sum(count for _, count in counts), cost)

    def cost_per_second(self, model: str | None = None) -> float:
        """Return the speed of all workers for a model, 0 when none has measured it."""
        return sum(load.cost_per_second.get(model or self.model, 0.0) for load in self.loads.values())

    def in_progress_cost(self, model: str | None = None) -> float:
        """Return the cost that is left of the videos in progress."""
        left = (remaining for load in self.loads.values() for remaining in load.remaining.values())
        return sum(remaining.cost for remaining in left if remaining.model == (model or self.model))

    def wait_seconds(self, before: VideosBefore) -> float | None:
        """Return the time until a video behind `before` gets a slot."""
        if not before.count and any(load.free_slots for load in self._serving()):
            return 0.0
        return self._seconds(before.cost + self._cost_until_free_slot())

    def eta_seconds(self, before: VideosBefore, cost: float) -> float | None:
        """Return the time until a waiting video of this cost is completed, its file included."""
        denoised = self._seconds(before.cost + self.in_progress_cost() + cost)
        return None if denoised is None else denoised + self._mean_finishing_seconds()

    def in_progress_eta_seconds(self, record: VideoRecord) -> float | None:
        """Return the time until a video in progress is completed; its worker shares its time between its videos."""
        load = self.loads.get(record.worker or "")
        if load is None or self.model not in load.cost_per_second:
            return None
        own = record.cost * record.request.remaining_share(record.step) / load.cost_per_second[self.model]
        others = (left for video_id, left in load.remaining.items() if video_id != record.id)
        shared = sum(min(own, left.cost / load.cost_per_second.get(left.model, float("inf"))) for left in others)
        return own + shared + load.finishing_seconds.get(self.model, 0.0)

    def _cost_until_free_slot(self) -> float:
        """Return the cost until the video that is nearest to its end frees its slot: all others advance as well."""
        left = [remaining.cost for load in self._serving() for remaining in load.remaining.values()]
        return len(left) * min(left, default=0.0)

    def _serving(self) -> list[WorkerLoad]:
        return [load for load in self.loads.values() if self.model in load.cost_per_second]

    def _seconds(self, cost: float) -> float | None:
        """Return the time for this model's cost, with the time that the same workers spend on other models."""
        speed = self.cost_per_second()
        if not speed:
            return None
        seconds = cost / speed
        others = {model for load in self._serving() for model in load.cost_per_second} - {self.model}
        return seconds + sum(min(seconds, self._backlog_seconds(model)) for model in others)

    def _mean_finishing_seconds(self) -> float:
        known = [seconds for load in self._serving() if (seconds := load.finishing_seconds.get(self.model)) is not None]
        return sum(known) / len(known) if known else 0.0

    def _backlog_seconds(self, model: str) -> float:
        cost = self.backlog.get(model, 0.0) + self.in_progress_cost(model)
        return cost / (self.cost_per_second(model) or float("inf"))


def _rank(queue: str) -> int:
    """Return the rank of a queue: quarantine comes after high priority, and before normal and low."""
    priority = redis_keys.priority_of(queue)
    return 1 if priority is None else 2 * [*map(str, PRIORITIES)].index(priority)


def _num_served_before(queue: WaitingQueue, own: WaitingQueue, index: int) -> int:
    """Return how many videos of `queue` are served before the one at `index` of `own`."""
    if queue.rank != own.rank:
        return queue.length if queue.rank < own.rank else 0
    if queue.name == own.name:
        return min(queue.length, index)
    goes_first = (queue.virtual_time, queue.name) < (own.virtual_time, own.name)
    return min(queue.length, index + goes_first)


def read_queue_state(redis: Redis, model: str) -> QueueState:
    waiting = cast(dict[bytes, bytes], redis.hgetall(redis_keys.WAITING_COST))
    costs = {name.decode(): max(0, int(cost)) for name, cost in waiting.items()}
    backlog: dict[str, float] = {}
    for name, cost in costs.items():
        backlog[redis_keys.model_of(name)] = backlog.get(redis_keys.model_of(name), 0.0) + cost
    names = [name for name in costs if redis_keys.model_of(name) == model]
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.llen(redis_keys.queue(name))
        lengths = pipe.execute() if names else []
    virtual_times = read_virtual_times(redis, model, PRIORITIES) if len(names) > 1 else {}
    queues = [
        WaitingQueue(name, _rank(name), length, costs[name], virtual_times.get(name, 0.0))
        for name, length in zip(names, lengths, strict=True)
    ]
    return QueueState(model, queues, read_loads(redis), backlog)


def forecast(redis: Redis, records: Sequence[VideoRecord]) -> dict[str, Forecast]:
    """Return the forecasts of the unfinished ones of these videos, by id."""
    unfinished = [record for record in records if record.status in ("queued", "in_progress")]
    states = {model: read_queue_state(redis, model) for model in {record.request.model for record in unfinished}}
    indices = _indices(redis, [record for record in unfinished if record.status == "queued"])
    return {
        record.id: forecast_of(states[record.request.model], record, indices.get(record.id)) for record in unfinished
    }


def forecast_of(state: QueueState, record: VideoRecord, index: int | None) -> Forecast:
    """Return the forecast of an unfinished video, which waits at `index` of its own queue."""
    if record.status == "in_progress":
        return Forecast(None, _rounded(state.in_progress_eta_seconds(record)))
    if index is None:  # claimed, not started yet
        return Forecast()
    before = state.before(queue_of(record), index)
    return Forecast(before.count + 1, _rounded(state.eta_seconds(before, record.cost)))


def _indices(redis: Redis, waiting: Sequence[VideoRecord]) -> dict[str, int | None]:
    """Return the index of each video in its own queue."""
    if not waiting:
        return {}
    with redis.pipeline(transaction=False) as pipe:
        for record in waiting:
            pipe.lpos(redis_keys.queue(queue_of(record)), record.id)
        return dict(zip((record.id for record in waiting), pipe.execute(), strict=True))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
