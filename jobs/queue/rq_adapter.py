"""RQ, behind the only module that imports it: jobs, leases (RQ's executions) and the registration of a worker.

RQ's own worker loop is not used. It runs one job at a time, forks (a CUDA context does not survive that), takes a job
from one of several queues before anything records who has it, keeps a lease for minutes, and calls the function that a
job names. RQ's tools (`rq info`, `rq suspend`, its stop and shutdown commands) work all the same.
"""

import logging
import signal
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from types import FrameType
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline, PubSub
from redis.exceptions import RedisError
from rq import Queue, worker_registration
from rq.command import parse_payload
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.suspension import is_suspended
from rq.utils import now, parse_composite_key
from rq.worker import BaseWorker, WorkerStatus

from jobs import redis_keys
from jobs.lua import read_lua
from jobs.queue.lease import LEASE_SECONDS
from jobs.videos.record import PRIORITIES

logger = logging.getLogger(__name__)

# What RQ's tools show as a job's function. Called, it says how to start a worker; workers never call it.
TASK = "worker.tasks.generate"

# RQ's own records of ended jobs. Clients see the record of the video.
RESULT_TTL_SECONDS = 3600
FAILURE_TTL_SECONDS = 7 * 24 * 3600

_WORKER_TTL_SECONDS = 60
_FORGET_QUEUE = read_lua(__file__, "forget_queue")


def job_fields(redis: Redis, video_id: str, queue: str) -> list[Any]:
    """Return field, value, ... of the hash of a new job. Its data is JSON and holds the id of the video alone.

    Nothing is sent to Redis: a script writes the fields.
    """
    job = Job.create(
        TASK,
        args=(video_id,),
        id=video_id,
        origin=queue,
        timeout=-1,  # RQ's timeout is a signal that may interrupt anything; the worker keeps its own deadlines
        result_ttl=RESULT_TTL_SECONDS,
        failure_ttl=FAILURE_TTL_SECONDS,
        status=JobStatus.QUEUED,
        connection=redis,
        serializer=JSONSerializer,
    )
    job.enqueued_at = now()
    return [part for name, value in job.to_dict().items() for part in (name, value)]


@dataclass(frozen=True)
class Lease:
    """A job that one worker has, until the worker stops renewing the lease."""

    job: Job
    execution: Execution


def fetch_waiting_job(redis: Redis, job_id: str) -> Job | None:
    """Return a queued job, None when it was deleted, has been taken, or is not a task of this project's workers."""
    try:
        job = Job.fetch(job_id, connection=redis, serializer=JSONSerializer)
    except NoSuchJobError:
        return None
    if job.get_status(refresh=False) != JobStatus.QUEUED:
        return None
    # The name is compared and never imported: a worker does one thing, whatever a job names.
    if (name := _function_name(job)) != TASK:
        logger.error("job %s dropped: it names the function %r; workers run %s only", job_id, name, TASK)
        return None
    return job


def lease_job(job: Job, worker: str, pipe: Pipeline) -> Lease:
    """Lease a job to a worker, in the caller's MULTI."""
    execution = Execution.create(job, LEASE_SECONDS, pipeline=pipe, worker_name=worker)
    job.prepare_for_execution(worker, pipeline=pipe)
    pipe.persist(job.key)
    return Lease(job, execution)


def leased_jobs(redis: Redis) -> set[str]:
    """Return the ids of the jobs under a lease; forgets leases that have expired, by Redis's clock."""
    registries = [_open(redis, name).started_job_registry.key for name in queue_names(redis)]
    with redis.pipeline(transaction=False) as pipe:
        for key in registries:
            pipe.zrange(key, 0, -1)
        answers = cast(list[list[bytes]], pipe.execute())
    entries = [(key, raw.decode()) for key, members in zip(registries, answers, strict=True) for raw in members]
    with redis.pipeline(transaction=False) as pipe:
        for _, member in entries:
            pipe.exists(redis_keys.lease(*parse_composite_key(member)))
        alive = pipe.execute()
    leased = set()
    for (key, member), is_alive in zip(entries, alive, strict=True):
        if is_alive:
            leased.add(parse_composite_key(member)[0])
        else:
            redis.zrem(key, member)
    return leased


def release_leases(redis: Redis, worker_prefix: str) -> int:
    """End the leases of dead workers, by the start of their names; returns how many there were."""
    released = 0
    for key in redis.scan_iter(redis_keys.lease("*", "*"), count=1000):
        name = cast(bytes | None, redis.hget(key, "worker_name")) or b""
        if name.decode().startswith(worker_prefix):
            released += redis.delete(key)
    return released


def queues_of(model: str) -> list[str]:
    """Return the names of the queues that every model has; those of owners come and go."""
    shared = [redis_keys.queue_name(model, priority) for priority in PRIORITIES]
    return [*shared, redis_keys.quarantine_queue_name(model)]


def queue_names(redis: Redis) -> list[str]:
    """Return the names of the queues that have held a video, without forgotten ones."""
    prefix = redis_keys.queue("")
    names = (raw.decode().removeprefix(prefix) for raw in cast(set[bytes], redis.smembers(redis_keys.RQ_QUEUES)))
    return sorted(filter(redis_keys.is_video_queue, names))


def forget_ended_jobs(redis: Redis) -> None:
    """Remove expired entries from RQ's registries of finished and failed jobs, and owners' queues that are empty."""
    for name in queue_names(redis):
        queue = _open(redis, name)
        queue.finished_job_registry.cleanup()
        queue.failed_job_registry.cleanup()
        forget_if_empty(redis, name)


def jobs_without_ttl(redis: Redis) -> set[str]:
    """Return the videos whose job stays until it is removed."""
    prefix = redis_keys.job("")
    keys = [raw.decode() for raw in redis.scan_iter(f"{prefix}*", count=1000)]
    with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.ttl(key)
        ttls = pipe.execute()
    return {key.removeprefix(prefix) for key, ttl in zip(keys, ttls, strict=True) if ttl == -1}


def forget_if_empty(redis: Redis, name: str) -> bool:
    """Forget an owner's queue that has no jobs, running and remembered ones included; returns whether it did so."""
    if not redis_keys.is_owned(name):
        return False
    queue = _open(redis, name)
    registries = (
        queue.started_job_registry,
        queue.finished_job_registry,
        queue.failed_job_registry,
        queue.canceled_job_registry,
        queue.deferred_job_registry,
        queue.scheduled_job_registry,
    )
    keys = [redis_keys.RQ_QUEUES, queue.key, *(registry.key for registry in registries)]
    return bool(redis.eval(_FORGET_QUEUE, len(keys), *keys))


def forget_dead_workers(redis: Redis, queues: Collection[str]) -> None:
    """Remove workers whose registration has expired from RQ's sets of workers: of all, and of each of `queues`."""
    names = [
        worker_registration.REDIS_WORKER_KEYS,
        *(worker_registration.WORKERS_BY_QUEUE_KEY % name for name in queues),
    ]
    with redis.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.smembers(name)
        members = [sorted(found) for found in cast(list[set[bytes]], pipe.execute())]
        known = sorted(set().union(*members))
        for key in known:
            pipe.exists(key)
        dead = {key for key, is_alive in zip(known, pipe.execute(), strict=True) if not is_alive}
        for name, found in zip(names, members, strict=True):
            if gone := dead.intersection(found):
                pipe.srem(name, *gone)
        pipe.execute()


class Ending(Enum):
    """How a job ended, for RQ. `GONE`: the record says everything, or the job waits again."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    GONE = "gone"


class VideoWorker(BaseWorker):
    """A worker as RQ's tools see it, and its leases. All methods but the signal handler are for one thread."""

    def __init__(self, redis: Redis, models: Sequence[str], name: str) -> None:
        super().__init__(
            [_open(redis, queue) for model in models for queue in queues_of(model)],
            name=name,
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=_WORKER_TTL_SECONDS,
            log_job_description=False,
        )
        self.stop_signals = 0
        self._commands: PubSub | None = None
        self._jobs_to_stop: set[str] = set()

    @property
    def connection_timeout(self) -> int:
        return 0  # RQ raises the connection's socket timeout to this, for a blocking read that is not used here

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal: the first asks to drain, the second to stop at once."""
        logger.info("stopping on %s", signal.Signals(signum).name)
        self.stop_signals += 1

    def beat(self) -> None:
        """Renew the leases and the registration, which an outage may have ended. Raises `RedisError`."""
        if self.birth_date is None:
            self.register_birth()  # type: ignore[no-untyped-call]
        with self.connection.pipeline() as pipe:
            self.heartbeat(_WORKER_TTL_SECONDS, pipeline=pipe)
            for execution in self.executions.values():
                # Written whole, with its registry entry: Redis or another worker may have removed either in an outage.
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
        """Remove the registration."""
        try:
            if self._commands is not None:
                self._commands.close()
            self.register_death()  # type: ignore[no-untyped-call]
        except RedisError as error:
            logger.warning("worker registration not removed, it expires in %d s: %s", _WORKER_TTL_SECONDS, error)

    def show_state(self, suspended: bool) -> None:
        """Publish the state that `rq info` shows: busy, idle or suspended. Raises `RedisError`."""
        state = WorkerStatus.SUSPENDED if suspended else WorkerStatus.BUSY if self.executions else WorkerStatus.IDLE
        if state != self.get_state():
            self.set_state(state)

    def hold(self, lease: Lease) -> None:
        """Renew a lease from now on."""
        self.executions[lease.execution.id] = lease.execution

    def end(self, lease: Lease, ending: Ending, message: str = "") -> None:
        """End a lease and do what RQ does with a job that ended so. Raises `RedisError`; may be repeated."""
        self.executions.pop(lease.execution.id, None)
        job, execution = lease.job, lease.execution
        queue = _open(self.connection, job.origin)
        job.ended_at = now()
        if ending is Ending.FINISHED:
            self.handle_job_success(job, queue, queue.started_job_registry, execution)
        elif ending is Ending.GONE:
            self._remove(lease)
        else:
            job.retries_left = 0  # jobs of version 0.1 carry retries; the record counts the attempts
            self._stopped_job_id = job.id if ending is Ending.STOPPED else None
            self.handle_job_failure(job, queue, queue.started_job_registry, exc_string=message, execution=execution)

    def _remove(self, lease: Lease) -> None:
        """Remove the lease, and the job unless another worker has it or it waits again."""
        with self.connection.pipeline() as pipe:
            pipe.watch(lease.job.key)
            status, owner = pipe.hmget(lease.job.key, ["status", "worker_name"])
            pipe.multi()
            lease.execution.delete(lease.job, pipe)
            if (status, owner) == (JobStatus.STARTED.value.encode(), self.name.encode()):
                pipe.delete(lease.job.key)
            pipe.execute()

    def is_suspended(self) -> bool:
        """Return whether `rq suspend` is in force. Raises `RedisError`."""
        return bool(is_suspended(self.connection))

    def jobs_to_stop(self) -> Iterable[str]:
        """Return the ids of jobs that RQ's stop commands have named since the last call. Raises `RedisError`."""
        # Read here: RQ's own thread for commands ends without a message when Redis does not answer.
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
        stopped, self._jobs_to_stop = self._jobs_to_stop, set()
        return stopped

    def handle_payload(self, message: Any) -> None:
        """Handle one of RQ's commands."""
        payload = parse_payload(message)
        if payload["command"] in ("stop-job", "stop-execution"):
            self._jobs_to_stop.add(str(payload.get("job_id")))
        elif payload["command"] == "shutdown":
            self.request_stop(signal.SIGINT, None)


def _open(redis: Redis, name: str) -> Queue:
    return Queue(name, connection=redis, serializer=JSONSerializer)


def _function_name(job: Job) -> str | None:
    """Return the function that a job names, None when its data cannot be read."""
    try:
        return job.func_name
    except DeserializationError:
        return None
