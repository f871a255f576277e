"""The RQ worker of a process that owns a device: it takes jobs one at a time and runs them in this process.

Not RQ's own loop: that forks (a CUDA context does not survive it), pops a job of several queues before anything says
who has it, keeps its lease for minutes, and calls whatever function the job names.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import worker_registration
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from jobs.queue import TASK, queues
from jobs.store import VideoStore
from worker.claims import Claim, Claims
from worker.leases import BEAT_SECONDS, LEASE_SECONDS

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.05
_RETRY_SECONDS = 0.5
_WORKER_TTL_SECONDS = 60


class VideoWorker(BaseWorker):
    """Serves the queues of `models`: higher priorities first, the models of one priority in turn.

    `tasks` are the functions that a job may name, each taking the job's id. `on_beat` is called every few seconds from
    a thread of its own, whatever the main thread is at.
    """

    def __init__(
        self,
        redis: Redis,
        models: Sequence[str],
        name: str,
        tasks: Mapping[str, Callable[[str], None]],
        on_beat: Callable[[], None],
    ) -> None:
        super().__init__(
            [queue for model in models for queue in queues(redis, model)],
            name=name,
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_SECONDS,
        )
        self._tasks = tasks
        self._on_beat = on_beat
        self._claims = Claims(redis, VideoStore(redis), models, name)
        self._ended = threading.Event()

    @property
    def connection_timeout(self) -> int:
        return 0  # RQ raises the connection's socket timeout to this, for a blocking read that is not done here

    @property
    def stop_requested(self) -> bool:
        return self._stop_requested

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: end after the present job, which looks at `stop_requested` to end early."""
        logger.info("stopping on %s", signal.Signals(signum).name)
        self._stop_requested = True

    def work(self, burst: bool = False, *_args: Any, **_kwargs: Any) -> bool:
        """Run jobs until asked to stop, with `burst` until the queues are empty. Whether there were any."""
        worked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.request_stop)
        with self._registered():
            while not self._stop_requested:
                try:
                    claim = self._claim()
                except RedisError as error:
                    logger.warning("Redis is away, trying again: %s", error)
                    time.sleep(_RETRY_SECONDS)
                    continue
                if claim is not None:
                    self._run(claim)
                    worked = True
                elif burst and not self._claims.anything_waiting():
                    break
                else:
                    time.sleep(_IDLE_SECONDS)
        return worked

    def _claim(self) -> Claim | None:
        claim = self._claims.take(idle=True)
        if claim is not None:
            self.executions[claim.execution.id] = claim.execution
            self.set_state(WorkerStatus.BUSY)
        return claim

    # Running

    def _run(self, claim: Claim) -> None:
        try:
            self._tasks[TASK](claim.job.id)
        except RedisError as error:
            logger.error("job %s: Redis is away, left to be recovered: %s", claim.job.id, error)
        except Exception:
            # One job must not end the worker; its video comes back when the lease is gone, as after a crash.
            logger.exception("job %s: left to be recovered", claim.job.id)
        self.executions.pop(claim.execution.id, None)
        self._end(claim)

    def _end(self, claim: Claim) -> None:
        """Give up the lease, and remove the job if it is still this worker's: the record says what became of it."""
        try:
            with self.connection.pipeline() as pipe:
                pipe.watch(claim.job.key)
                status, owner = pipe.hmget(claim.job.key, ["status", "worker_name"])
                pipe.multi()
                claim.execution.delete(claim.job, pipe)
                if (status, owner) == (JobStatus.STARTED.value.encode(), self.name.encode()):
                    pipe.delete(claim.job.key)
                self.set_state(WorkerStatus.IDLE, pipeline=pipe)
                pipe.execute()
        except RedisError as error:
            # Its lease ends by itself.
            logger.warning("job %s: its lease could not be given up: %s", claim.job.id, error)

    # Staying alive

    @contextmanager
    def _registered(self) -> Iterator[None]:
        """Known to RQ, and beating, for as long as the block lasts."""
        self.register_birth()  # type: ignore[no-untyped-call]
        beating = threading.Thread(target=self._beat_until_ended, name="heartbeat", daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._ended.set()
            beating.join(timeout=BEAT_SECONDS)
            try:
                self.register_death()  # type: ignore[no-untyped-call]
            except RedisError as error:
                logger.warning("could not sign off: %s", error)

    def _beat_until_ended(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            pause = BEAT_SECONDS
            try:
                self.beat()
                self._on_beat()
            except RedisError as error:
                logger.warning("no heartbeat, Redis is away: %s", error)
                pause = _RETRY_SECONDS
            except Exception:
                logger.exception("heartbeat")

    def beat(self) -> None:
        """Renew the registration and the leases."""
        with self.connection.pipeline(transaction=False) as pipe:
            self.heartbeat(_WORKER_TTL_SECONDS, pipeline=pipe)
            for execution in list(self.executions.values()):
                execution.heartbeat(execution.job.started_job_registry, LEASE_SECONDS, pipeline=pipe)
            was_forgotten = pipe.execute()[0] == 1
            if was_forgotten:  # the outage was longer than the registration lives
                pipe.hset(self.key, mapping=self.serialize())
                pipe.expire(self.key, _WORKER_TTL_SECONDS)
                worker_registration.register(self, pipe)
                pipe.execute()
