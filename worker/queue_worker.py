"""What RQ knows of a worker: that it lives, what it has at hand, and what became of its jobs.

Not RQ's own loop: that runs one job at a time, forks (a CUDA context does not survive it), pops a job of several queues
before anything says who has it, keeps its lease for minutes, and calls whatever function the job names. The loop is in
`worker/loop.py`, and what it tells and asks Redis in `worker/desk.py`.
"""

import logging
import signal
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError
from rq import worker_registration
from rq.command import parse_payload
from rq.job import JobStatus
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.utils import now
from rq.worker import BaseWorker, WorkerStatus

from jobs.queue import queues
from worker.claims import Claim
from worker.leases import LEASE_SECONDS
from worker.tasks import Ending

logger = logging.getLogger(__name__)

_WORKER_TTL_SECONDS = 60


class VideoWorker(BaseWorker):
    """The worker as RQ's own tools see it. All methods but the signal handler are for one thread."""

    def __init__(self, redis: Redis, models: Sequence[str], name: str) -> None:
        super().__init__(
            [queue for model in models for queue in queues(redis, model)],
            name=name,
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_SECONDS,
            log_job_description=False,
        )
        self.stop_signals = 0
        self._commands: PubSub | None = None
        self._to_stop: set[str] = set()

    @property
    def connection_timeout(self) -> int:
        return 0  # RQ raises the connection's socket timeout to this, for a blocking read that is not done here

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Signal handler: the first asks to end in order, the second at once."""
        logger.info("stopping on %s", signal.Signals(signum).name)
        self.stop_signals += 1

    # Its life

    def beat(self) -> None:
        """Renew the registration, which an outage may have ended, and the leases. Raises `RedisError`."""
        if self.birth_date is None:
            self.register_birth()  # type: ignore[no-untyped-call]
        with self.connection.pipeline(transaction=False) as pipe:
            self.heartbeat(_WORKER_TTL_SECONDS, pipeline=pipe)
            for execution in self.executions.values():
                # Whole and back in its registry: during an outage Redis or another worker may have let go of it.
                execution.last_heartbeat = now()
                execution.save(LEASE_SECONDS, pipe)
                execution.job.started_job_registry.add_execution(execution, pipeline=pipe, ttl=LEASE_SECONDS, xx=False)
            was_forgotten = pipe.execute()[0] == 1
            if was_forgotten:
                pipe.hset(self.key, mapping=self.serialize())
                pipe.expire(self.key, _WORKER_TTL_SECONDS)
                worker_registration.register(self, pipe)
                pipe.execute()

    def sign_off(self) -> None:
        try:
            if self._commands is not None:
                self._commands.close()
            self.register_death()  # type: ignore[no-untyped-call]
        except RedisError as error:
            logger.warning("could not sign off: %s", error)

    def show_state(self, suspended: bool) -> None:
        """What `rq info` shows: busy, idle or suspended. Raises `RedisError`."""
        state = WorkerStatus.SUSPENDED if suspended else WorkerStatus.BUSY if self.executions else WorkerStatus.IDLE
        if state != self.get_state():
            self.set_state(state)

    # Its jobs

    def took(self, claim: Claim) -> None:
        self.executions[claim.execution.id] = claim.execution

    def lost(self, claim: Claim) -> None:
        """The job is not this worker's any more: its lease is not renewed."""
        self.executions.pop(claim.execution.id, None)

    def ended(self, claim: Claim, ending: Ending, message: str = "") -> None:
        """Give up the lease and do what RQ does with a job that ended so. Raises `RedisError`; may be repeated."""
        self.lost(claim)
        job = claim.job
        job.ended_at = now()
        if ending is Ending.FINISHED:
            self.handle_job_success(job, claim.queue, claim.queue.started_job_registry, claim.execution)
        elif ending is Ending.GONE:
            self._remove(claim)
        else:
            job.retries_left = 0  # the record says that it has failed, so it has
            self._stopped_job_id = job.id if ending is Ending.STOPPED else None
            registry = claim.queue.started_job_registry
            self.handle_job_failure(job, claim.queue, registry, exc_string=message, execution=claim.execution)

    def _remove(self, claim: Claim) -> None:
        """The lease goes, and the job, unless it is another's by now or waits anew."""
        with self.connection.pipeline() as pipe:
            pipe.watch(claim.job.key)
            status, owner = pipe.hmget(claim.job.key, ["status", "worker_name"])
            pipe.multi()
            claim.execution.delete(claim.job, pipe)
            if (status, owner) == (JobStatus.STARTED.value.encode(), self.name.encode()):
                pipe.delete(claim.job.key)
            pipe.execute()

    # What it is told from outside

    def is_suspended(self) -> bool:
        """Whether `rq suspend` was given. Raises `RedisError`."""
        return bool(is_suspended(self.connection))

    def jobs_to_stop(self) -> Iterable[str]:
        """The ids of jobs that `rq`'s stop commands have named since the last call. Raises `RedisError`.

        Read here and not on RQ's own thread, which dies in silence when Redis is away.
        """
        try:
            if self._commands is None:
                self._commands = self.connection.pubsub()
                self._commands.subscribe(self.pubsub_channel_name)
            while (message := self._commands.get_message(timeout=0)) is not None:
                if message["type"] == "message":
                    self.handle_payload(message)
        except RedisError:
            self._commands = None
            raise
        stopped, self._to_stop = self._to_stop, set()
        return stopped

    def handle_payload(self, message: Any) -> None:
        """One command of `rq.command`."""
        payload = parse_payload(message)
        if payload["command"] in ("stop-job", "stop-execution"):
            self._to_stop.add(str(payload.get("job_id")))
        elif payload["command"] == "shutdown":
            self.request_stop(signal.SIGINT, None)
