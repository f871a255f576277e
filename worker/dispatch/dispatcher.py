"""The dispatcher thread: the only one that waits for Redis, so that no denoising step ever does.

While Redis is away, the loop and the finisher go on, and the dispatcher retries. It forgets no job before Redis has
answered.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from jobs.queue.claim import Claims
from jobs.queue.lease import BEAT_SECONDS, LEASE_SECONDS
from jobs.queue.rq_adapter import VideoWorker
from worker.context import WorkerContext
from worker.dispatch.active_jobs import ActiveJobs
from worker.dispatch.attempt_outcome import Stopped, conclude
from worker.dispatch.bystander_publisher import BystanderPublisher
from worker.dispatch.drain import Drain
from worker.dispatch.hang_watch import HangWatch
from worker.dispatch.job_claimer import JobClaimer, end_lease
from worker.dispatch.load_publisher import LoadPublisher
from worker.dispatch.progress_reporter import ProgressReporter
from worker.dispatch.served_models import ServedModels
from worker.messages import (
    DispatcherEnded,
    DispatcherMessage,
    DrainStarted,
    FinisherMessage,
    Inbox,
    JobFailed,
    JobFinished,
    LoopEnded,
    LoopMessage,
    LoopReport,
    ModelAdded,
    ModelLoading,
    ModelRefused,
    PassChanged,
    PreparationChanged,
    StopRequested,
    StopRetries,
)
from worker.preparation.reference_reader import ReferenceReader

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.02
_POLL_SECONDS = 0.1
_BYSTANDERS_SECONDS = 0.02
_RETRY_SECONDS = 0.5


@dataclass(frozen=True)
class DispatcherSettings:
    """Limits of a worker. `burst`: end once the queues are empty."""

    max_slots: int
    max_batch_rows: int
    drain_seconds: float
    step_timeout_seconds: float
    worker_ttl_seconds: int
    burst: bool = False


@dataclass
class _Due:
    """When each activity is due next, by the clock."""

    retry: float = 0.0
    poll: float = 0.0
    beat: float = 0.0
    bystanders: float = 0.0


class Dispatcher:
    """Claims jobs, posts them to the loop, and writes their progress and outcomes to Redis."""

    def __init__(
        self,
        redis: Redis,
        rq_worker: VideoWorker,
        context: WorkerContext,
        claims: Claims,
        served: ServedModels,
        settings: DispatcherSettings,
        inbox: Inbox[DispatcherMessage],
        loop: Inbox[LoopMessage],
        finisher: Inbox[FinisherMessage],
        on_beat: Callable[[], None],
        on_hang: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_beat` is called every few seconds.

        When a step, a preparation or a model load exceeds its timeout, the dispatcher stops renewing leases, so that
        other workers take the jobs over, and calls `on_hang` once the leases have expired.
        """
        self._redis = redis
        self._rq_worker = rq_worker
        self._context = context
        self._settings = settings
        self._inbox = inbox
        self._loop = loop
        self._finisher = finisher
        self._on_beat = on_beat
        self._on_hang = on_hang
        self._clock = clock
        self._served = served
        self._references = ReferenceReader(context.artifacts)
        self._jobs = ActiveJobs(loop, served.cards, self._references)
        self._claimer = JobClaimer(
            claims, rq_worker, context, self._jobs, settings.max_slots, settings.max_batch_rows, clock
        )
        self._progress = ProgressReporter(context, self._jobs)
        self._bystanders = BystanderPublisher(redis, rq_worker.name)
        self._load = LoadPublisher(redis, rq_worker.name, settings.worker_ttl_seconds)
        self._drain = Drain(settings.drain_seconds, clock)
        self._due = _Due()
        self._hang_watch = HangWatch(settings.step_timeout_seconds, clock)
        self._cost_per_second: Mapping[str, float] = {}
        self._is_suspended = False
        self._is_redis_away = False
        self._are_queues_empty = False
        self._is_handing_back = False
        self._has_loop_ended = False

    def run(self) -> None:
        """Run until asked to stop and no job is left, with `burst` until the queues are empty."""
        self._hang_watch.start()
        # A daemon that is not waited for: it may be in the middle of a long read.
        threading.Thread(target=self._references.run, name="reader", daemon=True).start()
        try:
            while not self._has_loop_ended and not self._is_done():
                self._receive()
                self._update_drain()
                try:
                    self._attend()
                except RedisError as error:
                    self._wait_for_redis(error)
                except Exception:
                    logger.exception("job dispatch failed, retrying in %.1f s", _RETRY_SECONDS)
                    self._due.retry = self._clock() + _RETRY_SECONDS
        finally:
            self._references.close()
            self._loop.post(DispatcherEnded())

    def sign_off(self) -> None:
        """Remove the worker from Redis. Call it when the threads have ended."""
        self._rq_worker.sign_off()
        self._load.withdraw()

    def _receive(self) -> None:
        for message in self._inbox.receive(max(_TICK_SECONDS, self._due.retry - self._clock())):
            match message:
                case LoopReport():
                    self._hang_watch.update(message)
                    self._cost_per_second = message.cost_per_second
                    self._jobs.update_steps(message)
                    if self._served.update_loaded(message):
                        self._beat_soon()
                case ModelAdded() | ModelRefused() | ModelLoading():
                    if isinstance(message, ModelLoading):
                        self._hang_watch.update(message)
                    self._served.update(message)
                    self._beat_soon()
                case PassChanged():
                    self._jobs.update_pass(message)
                case PreparationChanged():
                    self._hang_watch.update(message)
                    self._jobs.update_preparation(message)
                case StopRequested(signal_number):
                    self._rq_worker.request_stop(signal_number, None)
                case LoopEnded():
                    self._has_loop_ended = True
                case _:
                    self._jobs.update(message)
        self._jobs.receive_references()

    def _attend(self) -> None:
        """Do everything that is due in Redis."""
        now = self._clock()
        if now < self._due.retry:
            return
        if self._is_redis_away:
            self._redis.ping()
        if self._hang_watch.is_hanging(for_seconds=LEASE_SECONDS):
            self._on_hang()
        if now >= self._due.bystanders:
            self._bystanders.update(self._jobs.bystanders)
            self._due.bystanders = now + _BYSTANDERS_SECONDS
        if now >= self._due.beat and not self._hang_watch.is_hanging():
            self._beat()
        if now >= self._due.poll:
            self._poll()
        self._progress.store_snapshot()
        self._conclude()
        self._claimer.start_claimed()
        if not self._drain.has_begun and not self._hang_watch.is_hanging():
            self._claim()
        if self._is_redis_away:
            logger.info("Redis is available again")
            self._is_redis_away = False

    def _wait_for_redis(self, error: RedisError) -> None:
        if not self._is_redis_away:
            logger.warning("Redis is not available, work goes on, retrying every %.1f s: %s", _RETRY_SECONDS, error)
        self._is_redis_away = True
        self._due.retry = self._clock() + _RETRY_SECONDS

    def _beat(self) -> None:
        self._rq_worker.beat()
        self._load.publish(
            self._jobs,
            self._claimer.free_slots,
            self._cost_per_second,
            self._served.states,
            self._served.refused_adapters,
        )
        self._bystanders.renew()
        self._served.beat()
        self._due.beat = self._clock() + BEAT_SECONDS
        self._on_beat()

    def _poll(self) -> None:
        """Report progress, and read commands that RQ's tools have sent."""
        self._progress.report()
        to_stop = set(self._rq_worker.jobs_to_stop())
        for job in self._jobs.running:
            if job.record.id in to_stop:
                self._jobs.stop(job, Stopped.BY_OPERATOR)
        self._is_suspended = self._rq_worker.is_suspended()
        self._rq_worker.show_state(self._is_suspended)
        self._due.poll = self._clock() + _POLL_SECONDS

    def _conclude(self) -> None:
        """Write the outcomes of jobs to Redis. A job stays active until Redis has answered."""
        for job in self._jobs:
            if job.outcome is None:
                continue
            ending = conclude(self._context, job.record, job.outcome)
            self._jobs.remove(job)
            if isinstance(job.outcome, JobFinished):
                self._load.record_finishing(job.record.request.model, job.outcome.timings)
            message = str(job.outcome.error) if isinstance(job.outcome, JobFailed) else ""
            end_lease(self._rq_worker, job.claim, ending, message)

    def _claim(self) -> None:
        self._are_queues_empty = False
        while not self._is_suspended and self._claimer.can_claim:
            if not self._claimer.claim():
                self._are_queues_empty = self._settings.burst and not self._claimer.anything_waiting()
                break
            self._beat_soon()

    def _beat_soon(self) -> None:
        """Publish a change soon."""
        self._due.beat = min(self._due.beat, self._clock() + _POLL_SECONDS)

    def _update_drain(self) -> None:
        """Start the drain at the first stop request, and hand back at its end or at the second request."""
        if self._rq_worker.stop_signals and not self._drain.has_begun:
            self._drain.begin()
            self._loop.post(DrainStarted())
        if self._rq_worker.stop_signals > 1:
            self._drain.skip()
        if self._drain.is_handing_back and not self._is_handing_back:
            self._is_handing_back = True
            self._finisher.post(StopRetries())
        if self._is_handing_back:
            for job in self._jobs.running:
                self._jobs.stop(job, Stopped.HANDED_BACK)

    def _is_done(self) -> bool:
        if len(self._jobs) or self._claimer.has_claimed:
            return self._drain.is_over
        return self._drain.has_begun or (self._settings.burst and (self._are_queues_empty or self._is_suspended))
