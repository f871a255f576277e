"""What a worker asks and tells Redis, on a thread of its own: no denoising step ever waits for an answer.

The desk takes jobs, has them started (`orders`, which the loop reads), hears what becomes of them (`news`, which the
loop writes), and writes it down. While Redis is away everything stays as it is, the loop goes on, and the desk tries
again: nothing here is forgotten before Redis has answered.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from jobs.loads import Load, Remaining, publish_load, withdraw_load
from jobs.records import VideoRecord
from jobs.store import StepsDone
from worker import tasks
from worker.claims import Claim, Claims
from worker.errors import NoLongerWantedError
from worker.leases import BEAT_SECONDS, LEASE_SECONDS
from worker.queue_worker import VideoWorker
from worker.tasks import Broken, Ending, Outcome, Stopped, Workplace

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.02
_POLL_SECONDS = 0.1
_RETRY_SECONDS = 0.5
# How long a worker that is to end goes on trying to tell Redis what became of its videos.
_FAREWELL_SECONDS = 5.0


@dataclass(frozen=True)
class DeskSettings:
    """`seats` is how many videos are denoised at once, of which `rows` fill a pass."""

    seats: int
    rows: int
    drain_seconds: float
    step_timeout_seconds: float
    worker_ttl_seconds: int


@dataclass(eq=False)
class Held:
    """A job that this worker has. `kept` is what another one has left of it. The loop writes `step`, `preview`,
    `snapshot` and `is_denoised`; the rest is the desk's."""

    request_id: str  # of this execution: when a video comes back, what is left of the one before is not taken for it
    claim: Claim
    record: VideoRecord
    kept: bytes | None = None
    step: int = 0
    preview: str | None = None
    snapshot: bytes | None = None
    is_denoised: bool = False
    reported: int = 0
    outcome: Outcome | None = None

    @property
    def remaining(self) -> Remaining:
        share = 1 - self.step / max(1, self.record.steps)
        return Remaining(model=self.record.request.model, cost=self.record.cost * share)


@dataclass(frozen=True)
class Admit:
    held: Held


@dataclass(frozen=True)
class Evict:
    held: Held


Order = Admit | Evict


@dataclass
class _Due:
    """When things are to be done next, by the monotonic clock."""

    retry: float = 0.0
    poll: float = 0.0
    beat: float = 0.0
    claim: float = 0.0
    farewell: float | None = None
    drained: float | None = None


@dataclass
class Desk:
    """`on_beat` is called every few seconds, `cost_per_second` tells what the engine has measured. The loop sets
    `alive_at`, and by model the `finishing_seconds` of a video; once a step hangs no lease is renewed, others take the
    jobs over, and then `on_hang` is called."""

    redis: Redis
    worker: VideoWorker
    place: Workplace
    claims: Claims
    settings: DeskSettings
    cost_per_second: Callable[[], Mapping[str, float]]
    is_finisher_full: Callable[[], bool]
    on_beat: Callable[[], None]
    on_hang: Callable[[], None] = lambda: None
    burst: bool = False
    orders: "queue.SimpleQueue[Order]" = field(default_factory=queue.SimpleQueue)
    news: "queue.SimpleQueue[tuple[Held, Outcome] | None]" = field(default_factory=queue.SimpleQueue)
    alive_at: float = field(default_factory=time.monotonic)
    finishing_seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self._held: dict[str, Held] = {}
        self._claimed: list[Claim] = []
        self._due = _Due()
        self._suspended = False
        self._is_away = False
        self._nothing_waits = False
        self._numbers = count(1)

    # For the loop

    def find(self, request_id: str) -> Held | None:
        """None for one that this worker has no more."""
        return self._held.get(request_id)

    def tell(self, held: Held, outcome: Outcome) -> None:
        """What became of it."""
        self.news.put((held, outcome))

    def store_files(self, request_id: str, folder: Path) -> tasks.Artifacts:
        """For the finisher. Raises `NoLongerWantedError` for a video that this worker has no more."""
        held = self.find(request_id)
        if held is None:
            raise NoLongerWantedError("cancelled, deleted, or given to another worker")
        return tasks.store_files(self.place, held.record, folder, lambda: self._may_write(held))

    @property
    def is_handing_back(self) -> bool:
        """Whether what is not done by now goes back to the queue."""
        drained = self._due.drained
        return self.worker.stop_signals > 1 or (drained is not None and time.monotonic() >= drained)

    # The thread

    def run(self) -> None:
        """Until asked to stop and nothing is left, with `burst` until the queues are empty. Then `over` is set."""
        try:
            while not self.over.is_set():
                self._hear()
                try:
                    self._attend()
                except RedisError as error:
                    self._go_without(error)
                except Exception:
                    logger.exception("at the desk")
                    self._due.retry = time.monotonic() + _RETRY_SECONDS
                if self._is_done():
                    break
        finally:
            self.over.set()

    def _hear(self) -> None:
        """What became of jobs, waiting for it if there is nothing else to do."""
        timeout = max(_TICK_SECONDS, self._due.retry - time.monotonic())
        try:
            entry = self.news.get(timeout=timeout)
            while True:
                if entry is not None and self._held.get(entry[0].request_id) is entry[0]:
                    entry[0].outcome = entry[0].outcome or entry[1]
                entry = self.news.get_nowait()
        except queue.Empty:
            pass

    def _attend(self) -> None:
        now = time.monotonic()
        if now < self._due.retry:
            return
        if self._is_away:
            self.redis.ping()
        if self._is_hanging(for_seconds=LEASE_SECONDS):
            self.on_hang()
        if now >= self._due.beat and not self._is_hanging():
            self._beat()
        if now >= self._due.poll:
            self._poll()
            self._due.poll = time.monotonic() + _POLL_SECONDS
        self._conclude()
        self._start_claimed()
        if self.worker.stop_signals:
            self._drain()
        elif not self._is_hanging():
            self._claim()
        if self._is_away:
            logger.info("Redis is back")
            self._is_away = False

    def _go_without(self, error: RedisError) -> None:
        if not self._is_away:
            logger.warning("Redis is away; the work goes on, and so do the tries to reach it: %s", error)
        self._is_away = True
        self._due.retry = time.monotonic() + _RETRY_SECONDS

    def _is_hanging(self, for_seconds: float = 0.0) -> bool:
        return time.monotonic() - self.alive_at > self.settings.step_timeout_seconds + for_seconds

    # What it does

    def _beat(self) -> None:
        self.worker.beat()
        self._publish_load()
        self._due.beat = time.monotonic() + BEAT_SECONDS
        self.on_beat()

    def _publish_load(self) -> None:
        load = Load(
            cost_per_second=dict(self.cost_per_second()),
            remaining={held.record.id: held.remaining for held in self._held.values()},
            free_seats=max(0, self._free_seats()),
            finishing_seconds=self.finishing_seconds.copy(),
        )
        publish_load(self.redis, self.worker.name, load, self.settings.worker_ttl_seconds)

    def _poll(self) -> None:
        """Say how far each is, and drop those that are this worker's no more."""
        held = [one for one in self._held.values() if one.outcome is None]
        reports = [_news_of(one) for one in held]
        for one, report, wanted in zip(held, reports, self.place.store.report(reports, self.worker.name), strict=True):
            if report.step is not None:
                one.reported = report.step
            if report.preview is one.preview:
                one.preview = None
            if not wanted and not one.is_denoised:  # what is being finished is noticed at its end, files and all
                self._stop(one, Stopped.NO_LONGER_WANTED)
        for one in held:
            self._keep(one)
        for job_id in self.worker.jobs_to_stop():
            for one in held:
                if one.record.id == job_id:
                    self._stop(one, Stopped.BY_OPERATOR)
        self._suspended = self.worker.is_suspended()
        self.worker.show_state(self._suspended)

    def _keep(self, held: Held) -> None:
        snapshot = held.snapshot
        if snapshot is None:
            return
        self.place.store.keep_snapshot(held.record.id, snapshot, self.worker.name)
        if held.snapshot is snapshot:
            held.snapshot = None

    def _stop(self, held: Held, outcome: Stopped) -> None:
        held.outcome = outcome
        self.orders.put(Evict(held))

    def _conclude(self) -> None:
        """Write down what became of jobs; each is held until Redis has answered."""
        for held in list(self._held.values()):
            if held.outcome is not None:
                ending = tasks.conclude(self.place, held.record, held.outcome)
                message = str(held.outcome.error) if isinstance(held.outcome, Broken) else ""
                del self._held[held.request_id]
                self._end(held.claim, ending, message)

    def _end(self, claim: Claim, ending: Ending, message: str = "") -> None:
        try:
            self.worker.ended(claim, ending, message)
        except RedisError as error:
            # The record is what counts, and it says so already; the lease ends by itself.
            logger.warning("job %s: its lease could not be given up: %s", claim.job.id, error)

    def _claim(self) -> None:
        self._nothing_waits = False
        while self._may_claim():
            claim = self.claims.take(idle=not self._held and not self._claimed)
            if claim is None:
                self._nothing_waits = self.burst and not self.claims.anything_waiting()
                break
            self.worker.took(claim)
            self._claimed.append(claim)
            self._start_claimed()
            if self._rows() >= self.settings.rows:
                # A pass is full: what more is taken waits here for its turn, and another worker may have room for it.
                self._due.claim = time.monotonic() + _POLL_SECONDS
            self._due.beat = min(self._due.beat, time.monotonic() + _POLL_SECONDS)  # tell the new load soon

    def _may_claim(self) -> bool:
        alone = any(held.claim.record.alone for held in self._held.values())
        ready = time.monotonic() >= self._due.claim and not self.is_finisher_full()
        return ready and not alone and not self._suspended and self._free_seats() > 0

    def _free_seats(self) -> int:
        taken = sum(not held.is_denoised for held in self._held.values())
        return self.settings.seats - taken - len(self._claimed)

    def _rows(self) -> int:
        rows = [1 if held.record.request.guidance_scale == 1 else 2 for held in self._held.values()]
        return sum(rows)

    def _start_claimed(self) -> None:
        while self._claimed:
            claim = self._claimed[0]
            record = tasks.start(self.place, claim.job.id)
            kept = self.place.store.snapshot(claim.job.id) if record is not None else None
            del self._claimed[0]
            if record is None:
                self._end(claim, Ending.GONE)
                continue
            held = Held(f"{record.id}/{next(self._numbers)}", claim, record, kept)
            self._held[held.request_id] = held
            self.orders.put(Admit(held))

    def _may_write(self, held: Held) -> bool:
        """Asked by the finisher's thread before it writes. A lease that ended while this process was stopped shows in
        the record; that Redis does not answer does not mean that it has ended."""
        try:
            return self.place.store.wanted(held.record.id, self.worker.name)
        except RedisError:
            return self.find(held.request_id) is held

    # The end

    def _drain(self) -> None:
        """Take nothing more, and hand back what is not done in time."""
        if self._due.drained is None:
            self._due.drained = time.monotonic() + self.settings.drain_seconds
        if self.is_handing_back:
            for held in self._held.values():
                if held.outcome is None:
                    self._stop(held, Stopped.HANDED_BACK)
            self._conclude()

    def _is_done(self) -> bool:
        if self._held or self._claimed:
            return self.is_handing_back and self._is_farewell_over()
        return self.worker.stop_signals > 0 or (self.burst and (self._nothing_waits or self._suspended))

    def _is_farewell_over(self) -> bool:
        self._due.farewell = self._due.farewell or time.monotonic() + _FAREWELL_SECONDS
        return time.monotonic() >= self._due.farewell

    def sign_off(self) -> None:
        """Once nothing runs any more."""
        self.worker.sign_off()
        try:
            withdraw_load(self.redis, self.worker.name)
        except RedisError as error:
            logger.warning("could not withdraw: %s", error)


def _news_of(held: Held) -> StepsDone:
    """A preview is often done after its step was told: the step is then told again, with it."""
    preview = held.preview
    is_new = preview is not None or held.step != held.reported
    return StepsDone(held.record, held.step if is_new else None, preview)
