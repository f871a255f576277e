"""Recovery: videos whose worker or job was lost are queued again."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from redis import Redis

from jobs import redis_keys
from jobs.cards import known_models
from jobs.lua import ALLOW_OOM, read_lua
from jobs.queue import deaths, rq_adapter
from jobs.queue.quarantine import FIRST_DEATH, Verdict, group_prefix, judge
from jobs.queue.transitions import Transitions
from jobs.videos.record import VideoRecord
from jobs.videos.store import VideoStore

logger = logging.getLogger(__name__)

_CLEAN_UP_EVERY_SECONDS = 60
# One worker recovers at a time, so that the suspects of a death are judged once. Another one goes on if it dies.
_RECOVERY_SECONDS = 10
_RECOUNT = ALLOW_OOM + read_lua(__file__, "recount")


class LostVideos(VideoStore):
    """The records as recovery uses them."""

    def __init__(self, redis: Redis, video_ttl_seconds: int | None = None) -> None:
        super().__init__(redis)
        self._transitions = Transitions(redis, video_ttl_seconds)

    def in_progress_ids(self) -> Sequence[str]:
        """Return the ids of all videos in progress."""
        return [raw.decode() for raw in cast(set[bytes], self._redis.smembers(redis_keys.IN_PROGRESS))]

    def requeue(
        self,
        video_id: str,
        worker: str | None = None,
        used_attempt: bool = True,
        changes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Move a video from in progress to queued: `worker` lost it. `changes` holds further fields to change."""
        record = self.find(video_id)
        return record is not None and self._transitions.requeue(record, "in_progress", worker, used_attempt, changes)

    def clear_suspects(self, workers: Sequence[str], deaths: int) -> None:
        """Take the videos out of quarantine that only the deaths of `workers` put there.

        Args:
            deaths: The number of deaths that their records then hold.
        """
        prefixes = tuple(group_prefix(worker) for worker in workers)
        for record in self.fetch(self.unfinished_ids() if prefixes else ()):
            is_first = record.deaths == FIRST_DEATH and (record.quarantine or "").startswith(prefixes)
            if is_first and self._transitions.clear(record, deaths):
                logger.info("%s: no longer in quarantine", record.id)

    def enqueue_again(self, record: VideoRecord) -> bool:
        """Give a queued video a new job at the front of its queue. False when it is not queued or its job is there."""
        return self._transitions.requeue(record, "queued")

    def give_up(self, record: VideoRecord, message: str) -> bool:
        """Fail a video that its worker lost. False when it has ended or another worker has it."""
        return self._transitions.fail(record, "worker_lost", message, record.worker, sources=("in_progress",))


class Recovery:
    """Every worker runs it at each beat, for the models of all workers; running it twice is harmless.

    Nothing is done about a video that is seen as lost for the first time: its job can be between a queue and a lease,
    and after an outage of Redis a worker that never stopped must first renew its leases.
    """

    def __init__(self, redis: Redis, videos: LostVideos, max_attempts: int) -> None:
        self._redis = redis
        self._videos = videos
        self._max_attempts = max_attempts
        self._seen_once: set[str] = set()
        self._recount = redis.register_script(_RECOUNT)

    def run(self) -> None:
        """Recover what is lost. Raises `RedisError`."""
        seen_once, self._seen_once = self._seen_once, set()
        lost = self._lost_ids()
        if lost & seen_once:
            self._recover(self._videos.fetch(lost), seen_once)
        self._seen_once = lost
        if self._redis.set(redis_keys.maintenance("queues"), 1, nx=True, ex=_CLEAN_UP_EVERY_SECONDS):
            self.clean_up()

    def recover_worker(self, name_prefix: str) -> None:
        """Recover at once the videos of workers known to be dead, by the start of their names."""
        rq_adapter.release_leases(self._redis, name_prefix)
        records = self._videos.fetch(self._videos.in_progress_ids())
        self._recover_workers([record for record in records if (record.worker or "").startswith(name_prefix)])

    def revoke_death(self, worker: str) -> None:
        """Clear the suspects of a worker that is alive: it was frozen, or had no connection, and lost its leases."""
        if deaths.revoke_death(self._redis, worker):
            logger.warning("worker %s was declared dead and is alive: its videos leave quarantine", worker)
            self._videos.clear_suspects([worker], deaths=0)

    def clean_up(self) -> None:
        """Remove what RQ keeps of ended jobs and dead workers, and correct the waiting cost of each queue."""
        rq_adapter.forget_ended_jobs(self._redis)
        queues = rq_adapter.queue_names(self._redis)
        shared = [queue for model in known_models(self._redis) for queue in rq_adapter.queues_of(model)]
        rq_adapter.forget_dead_workers(self._redis, {*queues, *shared})
        counted = [raw.decode() for raw in cast(list[bytes], self._redis.hkeys(redis_keys.WAITING_COST))]
        for queue in {*queues, *counted}:
            keys = [redis_keys.WAITING_COST, redis_keys.queue(queue)]
            if self._recount(keys=keys, args=[queue, redis_keys.video("")]):
                logger.warning("waiting cost corrected: %s", queue)

    def _recover(self, lost: Sequence[VideoRecord], seen_once: Collection[str]) -> None:
        for record in lost:
            if record.id in seen_once and record.status == "queued" and self._videos.enqueue_again(record):
                logger.warning("%s: queued without a job, queued again", record.id)
        # All videos of a worker at once: those of its last pass are judged together.
        dead = {record.worker for record in lost if record.id in seen_once}
        victims = [record for record in lost if record.status == "in_progress" and record.worker in dead]
        key = redis_keys.maintenance("recovery")
        if victims and self._redis.set(key, 1, nx=True, ex=_RECOVERY_SECONDS):
            self._recover_workers(victims)
            self._redis.delete(key)

    def _recover_workers(self, victims: Sequence[VideoRecord]) -> None:
        """Queue the videos of dead workers again: suspects in quarantine, the others at their places."""
        suspects = {}
        for worker in {record.worker for record in victims if record.worker is not None}:
            own = [record for record in victims if record.worker == worker]
            bystanders = deaths.read_bystanders(self._redis, worker)
            suspects[worker] = [record for record in own if bystanders.is_suspect(record)]
            for record in own:
                if not bystanders.is_suspect(record):
                    self._requeue_bystander(record, worker, is_unstarted=record.id in bystanders.unstarted)
            if any(not record.alone for record in suspects[worker]):
                deaths.record_death(self._redis, worker)
        for worker, records in suspects.items():
            died_with = deaths.died_with(self._redis, worker)
            for verdict in judge(worker, records, bool(died_with), self._max_attempts):
                self._carry_out(verdict, worker)
            self._videos.clear_suspects(died_with, deaths=FIRST_DEATH)
            deaths.forget_bystanders(self._redis, worker)

    def _requeue_bystander(self, record: VideoRecord, worker: str, is_unstarted: bool) -> None:
        # An unstarted video is a suspect if it was there before.
        changes = {"deaths": record.deaths + 1} if is_unstarted else {}
        if self._videos.requeue(record.id, worker, used_attempt=False, changes=changes):
            logger.warning("%s: worker %s lost, queued again", record.id, worker)

    def _carry_out(self, verdict: Verdict, worker: str) -> None:
        video_id = verdict.record.id
        if not verdict.is_cause:
            if self._videos.requeue(video_id, worker, verdict.used_attempt, verdict.changes):
                in_quarantine = verdict.changes.get("alone", True)
                logger.warning(
                    "%s: worker %s lost, queued again%s", video_id, worker, " in quarantine" if in_quarantine else ""
                )
            return
        message = f"the worker ended while it was making this video, {verdict.deaths} times"
        if self._videos.give_up(verdict.record, message):
            self._redis.delete(redis_keys.job(video_id))
            logger.error("%s: worker %s lost, no attempt left", video_id, worker)

    def _lost_ids(self) -> set[str]:
        """Return the unfinished videos that no living worker has and that wait in no queue.

        A video in progress that waits in a queue is lost, too: RQ's own clean-up, which other tools call, queues jobs
        and knows nothing of the records.
        """
        # Records before leases: a video that is claimed in between has a lease by then.
        unfinished, in_progress = set(self._videos.unfinished_ids()), set(self._videos.in_progress_ids())
        if not unfinished:
            return set()
        return (in_progress | (unfinished - self._waiting_ids())) - rq_adapter.leased_jobs(self._redis)

    def _waiting_ids(self) -> set[str]:
        # Whole queues: looking up each record in its queue would take quadratic time.
        with self._redis.pipeline(transaction=False) as pipe:
            for queue in rq_adapter.queue_names(self._redis):
                pipe.lrange(redis_keys.queue(queue), 0, -1)
            return {raw.decode() for ids in cast(Iterable[list[bytes]], pipe.execute()) for raw in ids}
