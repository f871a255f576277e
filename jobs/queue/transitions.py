"""The state transitions of a video, each a single Redis script.

    create ──> queued ──start──> in_progress ──complete──> completed
                 ▲ │                 │ │
                 │ └───────fail──────┼─┴────fail─────────> failed
                 └─────requeue───────┘

Nothing else changes a record. A script also does what follows from the change: it moves the job and its waiting cost,
updates the sets of ids, counts the metrics, publishes the event and makes the webhook due. So an ended video never
changes again, and a deleted record is never written to.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import OutOfMemoryError

from jobs import redis_keys
from jobs.lua import ALLOW_OOM, read_lua
from jobs.queue import rq_adapter
from jobs.telemetry import metrics
from jobs.videos.events import EVENT_OF, PUBLISH_EVENT, progress_data
from jobs.videos.record import Status, VideoError, VideoRecord
from jobs.videos.store import encode, to_hash
from jobs.videos.webhook_schedule import SCHEDULE_WEBHOOK, receiver_of

_CREATE = read_lua(__file__, "enqueue", "create")
_REQUEUE = ALLOW_OOM + "\n".join([PUBLISH_EVENT, read_lua(__file__, "enqueue", "requeue")])
_CHANGE = ALLOW_OOM + "\n".join([PUBLISH_EVENT, SCHEDULE_WEBHOOK, read_lua(__file__, "leave_queue", "change")])
_CLEAR = ALLOW_OOM + read_lua(__file__, "enqueue", "clear")
_DELETE = ALLOW_OOM + read_lua(__file__, "leave_queue", "delete")
_KEEP_SNAPSHOT = read_lua(__file__, "keep_snapshot")

# A snapshot outlives the worker that made it by a day at most.
_SNAPSHOT_SECONDS = 24 * 3600


class Transitions:
    """The scripts of one client. Ended videos expire after `video_ttl_seconds`.

    A method that takes `pipe` adds its script to the pipeline, which returns the answer with the others.
    """

    def __init__(self, redis: Redis, video_ttl_seconds: int | None = None) -> None:
        self._redis = redis
        self._video_ttl_seconds = video_ttl_seconds
        self._create = redis.register_script(_CREATE)
        self._change = redis.register_script(_CHANGE)
        self._requeue = redis.register_script(_REQUEUE)
        self._clear = redis.register_script(_CLEAR)
        self._delete = redis.register_script(_DELETE)
        self._keep_snapshot = redis.register_script(_KEEP_SNAPSHOT)

    def create(self, record: VideoRecord, pipe: Pipeline) -> None:
        """Write a new record and enqueue its job, in the caller's MULTI."""
        owned = [redis_keys.videos_of(record.owner)] if record.owner is not None else []
        keys = [redis_keys.video(record.id), redis_keys.VIDEOS, redis_keys.UNFINISHED, *owned]
        new = {"job": _job(record), "fields": to_hash(record)}
        self._create(
            keys=keys,
            args=[json.dumps(new), *rq_adapter.job_fields(self._redis, record.id, queue_of(record))],
            client=pipe,
        )

    def change(
        self,
        record: VideoRecord,
        sources: Sequence[Status],
        fields: Mapping[str, Any],
        worker: str | None = None,
        preview: str | None = None,
        pipe: Pipeline | None = None,
    ) -> bool:
        """Change fields of a record that is in one of `sources` and, where one is given, still belongs to `worker`.

        Returns whether the record has the state asked for: repeating a change whose answer was lost is harmless.
        """
        status: Status = fields.get("status", "in_progress")
        is_end = status in ("completed", "failed")
        receiver = receiver_of(record.request.webhook_url or "", record.owner) if is_end else ""
        change = {
            "id": record.id,
            "worker": _worker(worker),
            "from": sources,
            "event": EVENT_OF[status],
            "data": json.dumps(progress_data(record, dict(fields), preview) if status == "in_progress" else {}),
            "totals": metrics.ended(record.request.model, status, _error_code(fields)) if is_end else [],
            "receiver": receiver,
            "queue": queue_of(record),
            "cost": record.cost,
        }
        webhook_keys = [redis_keys.WEBHOOKS, redis_keys.webhooks_to(receiver)]
        keys = [*_keys(record), redis_keys.METRICS, *webhook_keys, redis_keys.EVENTS_CHANNEL]
        pairs = (part for pair in encode(fields).items() for part in pair)
        before = self._change(keys=keys, args=[json.dumps(change), *pairs], client=pipe)
        return pipe is None and before is not None and json.loads(before) in (*sources, status)

    def complete(self, record: VideoRecord, fields: Mapping[str, Any], worker: str | None) -> bool:
        """Move a video from in progress to completed."""
        completed = {"status": "completed", "progress": 100, **self._end_fields(), **fields}
        return self.change(record, ("in_progress",), completed, worker)

    def fail(
        self,
        record: VideoRecord,
        code: str,
        message: str,
        worker: str | None = None,
        sources: Sequence[Status] = ("queued", "in_progress"),
    ) -> bool:
        """Move a video from one of `sources` to failed."""
        error = VideoError(code=code, message=message).model_dump()
        return self.change(record, sources, {"status": "failed", **self._end_fields(), "error": error}, worker)

    def requeue(
        self,
        record: VideoRecord,
        source: Status,
        worker: str | None = None,
        used_attempt: bool = True,
        changes: Mapping[str, Any] | None = None,
    ) -> bool:
        """Queue a video again, at the front of its queue, if it is in `source` and, where one is given, still belongs
        to `worker`. False when it is not, or waits already.

        Args:
            used_attempt: Whether the attempt that was begun counts.
            changes: Further fields of the record to change.
        """
        reset = {"status": "queued", "worker": None, "started_at": None, "step": 0, "progress": 0, **(changes or {})}
        queued = record.model_copy(update=reset)
        again = {
            "job": _job(queued),
            "from": source,
            "worker": _worker(worker),
            "used_attempt": used_attempt,
            "fields": encode(reset),
        }
        own = [redis_keys.video(record.id), redis_keys.IN_PROGRESS, redis_keys.events(record.id)]
        keys = [*own, redis_keys.EVENTS_CHANNEL]
        return bool(self._requeue(keys=keys, args=[json.dumps(again), *self._job_fields(queued)]))

    def clear(self, record: VideoRecord, deaths: int) -> bool:
        """Take a video out of quarantine. False when it is no longer in the group that `record` names."""
        changes = {"alone": False, "quarantine": None, "deaths": deaths}
        cleared = record.model_copy(update=changes)
        order = {
            "job": _job(cleared),
            "group": json.dumps(record.quarantine, ensure_ascii=False),
            "quarantine_queue": queue_of(record),
            "fields": encode(changes),
        }
        keys = [redis_keys.video(record.id), redis_keys.queue(queue_of(record))]
        return bool(self._clear(keys=keys, args=[json.dumps(order), *self._job_fields(cleared)]))

    def delete(self, record: VideoRecord) -> bool:
        """Remove a record. False when there is none."""
        owned = [redis_keys.videos_of(record.owner)] if record.owner is not None else []
        keys = [*_keys(record), redis_keys.EVENTS_CHANNEL, redis_keys.VIDEOS, *owned]
        return bool(self._delete(keys=keys, args=[record.id, queue_of(record), record.cost]))

    def keep_snapshot(self, video_id: str, content: bytes, worker: str) -> bool:
        """Replace the snapshot of a video. False when it no longer belongs to `worker`."""
        keys = [redis_keys.video(video_id), redis_keys.snapshot(video_id)]
        try:
            return bool(self._keep_snapshot(keys=keys, args=[_worker(worker), content, _SNAPSHOT_SECONDS]))
        except OutOfMemoryError:
            return True  # the video goes on without a snapshot

    def _job_fields(self, record: VideoRecord) -> list[Any]:
        return rq_adapter.job_fields(self._redis, record.id, queue_of(record))

    def _end_fields(self) -> dict[str, Any]:
        now = time.time()
        return {"completed_at": now, "expires_at": now + self._video_ttl_seconds if self._video_ttl_seconds else None}


def queue_of(record: VideoRecord) -> str:
    """Return the name of the queue that the record's job waits in."""
    request = record.request
    if record.alone:
        return redis_keys.quarantine_queue_name(request.model)
    return redis_keys.queue_name(request.model, request.priority, record.owner)


def _keys(record: VideoRecord) -> list[str]:
    """Return the keys that `change` and `delete` take first."""
    queue, job = redis_keys.queue(queue_of(record)), redis_keys.job(record.id)
    sets = [redis_keys.WAITING_COST, redis_keys.UNFINISHED, redis_keys.IN_PROGRESS, redis_keys.EXPIRING]
    own = [redis_keys.events(record.id), redis_keys.snapshot(record.id)]
    return [redis_keys.video(record.id), queue, job, *sets, *own]


def _job(record: VideoRecord) -> dict[str, Any]:
    """Return the argument of the Lua function `enqueue`."""
    request, queue = record.request, queue_of(record)
    return {
        "id": record.id,
        "queue": queue,
        "queue_key": redis_keys.queue(queue),
        "job_key": redis_keys.job(record.id),
        "queues_key": redis_keys.RQ_QUEUES,
        "waiting_key": redis_keys.WAITING_COST,
        "virtual_times_key": "" if record.alone else redis_keys.virtual_times(request.model, request.priority),
        "cost": record.cost,
    }


def _worker(worker: str | None) -> str:
    """Return a worker as its record's field holds it, `""` for any."""
    return "" if worker is None else json.dumps(worker, ensure_ascii=False)


def _error_code(fields: Mapping[str, Any]) -> str | None:
    return (fields.get("error") or {}).get("code")
