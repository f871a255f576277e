"""The records of the videos in Redis, and the only ways in which their state changes.

    queued ──start──> in_progress ──complete──> completed
      ▲ │                 │ │
      │ └───────fail──────┼─┴────fail─────────> failed
      └─────requeue───────┘

A record is a hash `framedit:video:<id>` with a JSON value for each field of `VideoRecord`. `framedit:videos` holds
every id (ids sort by age), `framedit:videos:of:<owner>` those of one API key, `framedit:videos:unfinished` those that
are queued or in progress, `framedit:videos:running` those in progress, `framedit:videos:expiring` those that have an
end, by its time. Each change is one script (`jobs/scripts.py`) or one MULTI, so that a terminal state is never
overwritten and a deleted record is never written to. In the same step it is told to those who follow the video
(`jobs/events.py`).
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from redis import Redis
from redis.client import Pipeline

from jobs import metrics, queue, scripts
from jobs.errors import InvalidRequestError, VideoNotFoundError
from jobs.events import EVENT_OF, progress_data, stream_key, tell
from jobs.records import Artifact, ArtifactKind, Status, Timings, VideoError, VideoRecord, is_video_id
from jobs.turns import WAITING_KEY
from jobs.webhooks import WEBHOOKS_KEY, line_key, receiver_of

_ALL_KEY = "framedit:videos"
UNFINISHED_KEY = "framedit:videos:unfinished"
RUNNING_KEY = "framedit:videos:running"
_EXPIRING_KEY = "framedit:videos:expiring"

# How long an expired video is still known to have been there: its content answers 410, and then 404.
GONE_SECONDS = 24 * 3600

_IDS_AT_ONCE = 1000
# A video that nobody takes over for so long begins anew.
_SNAPSHOT_SECONDS = 24 * 3600


@dataclass(frozen=True)
class StepsDone:
    """How far a video is that a worker has. `step` is None where nothing is new; `preview` as in `progress`."""

    record: VideoRecord
    step: int | None
    preview: str | None = None


@dataclass(frozen=True)
class Page:
    records: Sequence[VideoRecord]
    has_more: bool


class Guard(Protocol):
    """A condition on new records, which is decided in the transaction that writes them."""

    def watched(self) -> Sequence[str]:
        """The keys that the decision rests on: where one changes meanwhile, it is made anew."""

    def check(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """Read what is needed, each command at once. Raises what refuses the records."""

    def commit(self, pipe: Pipeline, records: Sequence[VideoRecord]) -> None:
        """Queue the writes that go with the records."""


def record_key(video_id: str) -> str:
    return f"framedit:video:{video_id}"


class VideoStore:
    """All methods raise `redis.exceptions.RedisError` when Redis does not answer; nothing is known then of the change.

    The changes that a worker makes take its name: they are refused (False) once another worker has the video. Making
    the same change twice is harmless and answers True twice, so a worker may repeat one whose answer was lost.
    """

    def __init__(self, redis: Redis, max_attempts: int = 3, video_ttl_seconds: int | None = None) -> None:
        self._redis = redis
        self._max_attempts = max_attempts
        self._video_ttl_seconds = video_ttl_seconds
        self._change_script = redis.register_script(scripts.CHANGE)
        self._turns = [threading.Lock() for _ in range(64)]
        self._delete_script = redis.register_script(scripts.DELETE)
        self._keep_script = redis.register_script(scripts.KEEP_SNAPSHOT)

    # What the server does

    def create(self, *records: VideoRecord, guards: Sequence[Guard] = ()) -> None:
        """Write new records and put them on the queue, all or none; durable as Redis is when this returns.

        Raises what a guard raises; nothing is written then.
        """

        def write(pipe: Pipeline) -> None:
            for guard in guards:
                guard.check(pipe, records)
            pipe.multi()
            for guard in guards:
                guard.commit(pipe, records)
            for record in records:
                pipe.hset(record_key(record.id), mapping=_to_hash(record))
                pipe.zadd(_ALL_KEY, {record.id: 0})
                pipe.zadd(UNFINISHED_KEY, {record.id: 0})
                if record.owner is not None:
                    pipe.zadd(owned_key(record.owner), {record.id: 0})
            queue.enqueue(self._redis, records, pipe, self._max_attempts)

        watched = [key for guard in guards for key in guard.watched()]
        # Of two that watch the same one has to begin anew. Those of one owner take turns, at least within a process:
        # otherwise most of the work of many at once would be done in vain.
        with self._turns[hash(records[0].owner) % len(self._turns)] if watched else nullcontext():
            self._redis.transaction(write, *watched)

    def get(self, video_id: str) -> VideoRecord:
        """:raises VideoNotFoundError: when there is no such record."""
        record = self.find(video_id)
        if record is None:
            raise VideoNotFoundError(video_id)
        return record

    def find(self, video_id: str) -> VideoRecord | None:
        """The record, None when there is no such one."""
        raw = cast(dict[bytes, bytes], self._redis.hgetall(record_key(video_id))) if is_video_id(video_id) else {}
        return from_hash(raw) if raw else None

    def list(
        self,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
        owner: str | None = None,
    ) -> Page:
        """Records by age, newest first (`desc`), from the one that follows `after`, which may have been deleted.

        Of one owner, or of all.

        :raises InvalidRequestError: when `after` is not the id of a video.
        """
        if after is not None and not is_video_id(after):
            raise InvalidRequestError(f"after is {after!r}, which is not the id of a video", param="after")
        start = f"({after}" if after is not None else "+" if order == "desc" else "-"
        end = "-" if order == "desc" else "+"
        key = _ALL_KEY if owner is None else owned_key(owner)
        ids = self._redis.zrange(key, start, end, desc=order == "desc", bylex=True, offset=0, num=limit + 1)
        found = [raw.decode() for raw in cast(Sequence[bytes], ids)]
        return Page(self.fetch(found[:limit]), has_more=len(found) > limit)

    def delete(self, video_id: str) -> VideoRecord:
        """Remove a record and its place in the queue; a worker that is at it finds it no longer wanted.

        :raises VideoNotFoundError: when there is no such record.
        """
        record = self.get(video_id)
        if not self._delete_script(keys=_all_keys(record), args=_arguments(record)):
            raise VideoNotFoundError(video_id)
        return record

    def cancel(self, video_id: str) -> VideoRecord:
        """Fail a video that has not ended, with the code `cancelled`; one that has ended stays as it is.

        :raises VideoNotFoundError: when there is no such record.
        """
        self.fail(video_id, "cancelled", "the video was cancelled")
        return self.get(video_id)

    # What a worker does

    def start(self, video_id: str, worker: str) -> VideoRecord | None:
        """queued -> in_progress. Counts an attempt. None when the video is not there to be started any more."""
        fields = {"status": "in_progress", "worker": worker, "started_at": time.time(), "step": 0, "progress": 0}
        self._change(video_id, ("queued",), fields)
        record = self.find(video_id)
        mine = record is not None and record.status == "in_progress" and record.worker == worker
        return record if mine else None

    def progress(
        self, video_id: str, step: int, steps: int, worker: str | None = None, preview: str | None = None
    ) -> bool:
        """`step` of `steps` denoising steps are done. False when the video is no longer wanted (of this worker).

        `preview` is a small picture of what it will be, as a data URL; it is told, and not kept in the record.
        """
        return self._change(video_id, ("in_progress",), _progress(step, steps), worker, preview)

    def report(self, reports: Sequence[StepsDone], worker: str) -> Sequence[bool]:
        """`progress` of many videos at once; for each whether it is still wanted of this worker."""
        with self._redis.pipeline(transaction=False) as pipe:
            for report in reports:
                record, step = report.record, report.step
                if step is None:
                    pipe.hmget(record_key(record.id), ["status", "worker"])
                else:
                    keys, args = _change_of(
                        record, ("in_progress",), _progress(step, record.steps), worker, report.preview
                    )
                    self._change_script(keys=keys, args=args, client=pipe)
            answers = pipe.execute()
        mine = [b'"in_progress"', json.dumps(worker).encode()]
        expected = [mine if report.step is None else mine[0] for report in reports]
        return [answer == wanted for answer, wanted in zip(answers, expected, strict=True)]

    def keep_snapshot(self, video_id: str, content: bytes, worker: str) -> bool:
        """Keep how far a video has come, in place of what was kept before, until it ends or goes on from there. False
        when it is not wanted of this worker any more."""
        keys = [record_key(video_id), _snapshot_key(video_id)]
        return bool(self._keep_script(keys=keys, args=[json.dumps(worker), content, _SNAPSHOT_SECONDS]))

    def snapshot(self, video_id: str) -> bytes | None:
        """What was kept of a video that has not ended, None when nothing was."""
        return cast(bytes | None, self._redis.get(_snapshot_key(video_id)))

    def complete(
        self,
        video_id: str,
        artifacts: Mapping[ArtifactKind, Artifact],
        timings: Timings,
        worker: str | None = None,
    ) -> bool:
        """in_progress -> completed. To be called once the files are in the artifact store.

        False when the video was cancelled, deleted or given to another worker: the caller then leaves no file behind,
        unless the record is now another worker's.
        """
        fields = {
            "status": "completed",
            "progress": 100,
            **self._end(),
            "artifacts": {kind: artifact.model_dump() for kind, artifact in artifacts.items()},
            "timings": timings.model_dump(),
        }
        return self._change(video_id, ("in_progress",), fields, worker)

    def fail(self, video_id: str, code: str, message: str, worker: str | None = None) -> bool:
        """queued or in_progress -> failed, and off the queue. False when it has completed or is gone."""
        error = VideoError(code=code, message=message)
        fields = {"status": "failed", **self._end(), "error": error.model_dump()}
        return self._change(video_id, ("queued", "in_progress"), fields, worker)

    def requeue(
        self, video_id: str, worker: str | None = None, used_attempt: bool = True, alone: bool | None = None
    ) -> bool:
        """in_progress -> queued, at the front, with a new job: its worker died or gave it back.

        `worker` is the one that lost it. The caller looks at `attempts` first and fails a video that has had its share;
        without `used_attempt` the attempt that was begun is not counted. `alone` says whether it is to be made by
        itself from now on, None leaves that as it is.
        """

        def change(pipe: Pipeline) -> None:
            raw = cast(dict[bytes, bytes], pipe.hgetall(record_key(video_id)))
            record = from_hash(raw) if raw else None
            pipe.multi()
            if record is None or record.status != "in_progress" or worker not in (None, record.worker):
                return
            changes = {
                "status": "queued",
                "worker": None,
                "started_at": None,
                "step": 0,
                "progress": 0,
                "attempts": record.attempts if used_attempt else record.attempts - 1,
                "alone": record.alone if alone is None else alone,
            }
            pipe.hset(record_key(video_id), mapping=_encode(changes))
            pipe.srem(RUNNING_KEY, video_id)
            self._enqueue_again(record.model_copy(update=changes), pipe)
            tell(pipe, video_id, "queued")

        # The answers of the commands sent: none where there was nothing to change.
        return bool(self._redis.transaction(change, record_key(video_id)))

    def enqueue_lost(self, video_id: str) -> bool:
        """Give a queued video a new job at the front of its queue: the one that it had is gone. False if not queued."""

        def change(pipe: Pipeline) -> None:
            raw = cast(dict[bytes, bytes], pipe.hgetall(record_key(video_id)))
            record = from_hash(raw) if raw else None
            pipe.multi()
            if record is not None and record.status == "queued":
                self._enqueue_again(record, pipe)

        return bool(self._redis.transaction(change, record_key(video_id)))

    def _enqueue_again(self, record: VideoRecord, pipe: Pipeline) -> None:
        # RQ's own clean-up may have put it on the queue already.
        pipe.lrem(queue.queue_key(record), 0, record.id)
        queue.enqueue(self._redis, [record], pipe, self._max_attempts, at_front=True)

    def wanted(self, video_id: str, worker: str | None = None) -> bool:
        """Whether a video is still being made (by this worker): not cancelled, deleted, or given to another."""
        answer = self._redis.hmget(record_key(video_id), ["status", "worker"])
        status, owner = cast(tuple[bytes | None, bytes | None], answer)
        return status == b'"in_progress"' and (worker is None or owner == json.dumps(worker).encode())

    def unfinished_ids(self) -> Sequence[str]:
        """The ids of all videos that are queued or in progress, oldest first."""
        return [raw.decode() for raw in cast(Sequence[bytes], self._redis.zrange(UNFINISHED_KEY, 0, -1))]

    def running_ids(self) -> Sequence[str]:
        """The ids of all videos that are in progress: what to look through after a crash."""
        return [raw.decode() for raw in cast(set[bytes], self._redis.smembers(RUNNING_KEY))]

    def unfinished(self) -> Sequence[VideoRecord]:
        """All records that are queued or in progress, oldest first."""
        return self.fetch(self.unfinished_ids())

    # What the janitor does

    def expired(self, limit: int = 100) -> Sequence[VideoRecord]:
        """Records whose time is over and that are still there, the longest expired first."""
        ids = self._redis.zrange(_EXPIRING_KEY, "-inf", time.time(), byscore=True, offset=0, num=limit)
        return self.fetch(raw.decode() for raw in cast(Sequence[bytes], ids))

    def bury(self, record: VideoRecord) -> bool:
        """Remove a record that has expired or lost its file, and keep for a while that it has been there.

        False when another process has removed it.
        """
        # The mark first: were it last, a crash between would make an expired video one that never was.
        self._redis.set(_gone_key(record.id), record.owner or "", ex=GONE_SECONDS)
        return bool(self._delete_script(keys=_all_keys(record), args=_arguments(record)))

    def states(self) -> dict[str, Status]:
        """The state of every video there is."""
        ids = [raw.decode() for raw in cast(Sequence[bytes], self._redis.zrange(_ALL_KEY, 0, -1))]
        states: dict[str, Status] = {}
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ids[start : start + _IDS_AT_ONCE]
            with self._redis.pipeline(transaction=False) as pipe:
                for video_id in some:
                    pipe.hget(record_key(video_id), "status")
                found = zip(some, pipe.execute(), strict=True)
            states |= {video_id: json.loads(raw) for video_id, raw in found if raw is not None}
        return states

    def is_gone(self, video_id: str, owner: str | None = None) -> bool:
        """Whether a video (of this owner, or of any) was buried not long ago."""
        raw = cast(bytes | None, self._redis.get(_gone_key(video_id))) if is_video_id(video_id) else None
        return raw is not None and owner in (None, raw.decode())

    def _end(self) -> dict[str, float | None]:
        now = time.time()
        return {"completed_at": now, "expires_at": now + self._video_ttl_seconds if self._video_ttl_seconds else None}

    def _change(
        self,
        video_id: str,
        sources: tuple[Status, ...],
        fields: dict[str, Any],
        worker: str | None = None,
        preview: str | None = None,
    ) -> bool:
        """Change fields if the record is in one of `sources`; True also when it is in the state asked for already."""
        record = self.find(video_id)
        if record is None:
            return False
        keys, args = _change_of(record, sources, fields, worker, preview)
        before = self._change_script(keys=keys, args=args)
        allowed = [*sources, *([fields["status"]] if "status" in fields else [])]
        return before is not None and json.loads(before) in allowed

    def fetch(self, video_ids: Iterable[str]) -> Sequence[VideoRecord]:
        """The records of these videos, without those that are not there."""
        with self._redis.pipeline(transaction=False) as pipe:
            for video_id in video_ids:
                pipe.hgetall(record_key(video_id))
            return [from_hash(raw) for raw in pipe.execute() if raw]


def _progress(step: int, steps: int) -> dict[str, int]:
    # 100 is kept for a file that is durable.
    return {"step": step, "steps": steps, "progress": min(99, 100 * step // max(1, steps))}


def _change_of(
    record: VideoRecord,
    sources: tuple[Status, ...],
    fields: Mapping[str, Any],
    worker: str | None,
    preview: str | None,
) -> tuple[list[str], list[str]]:
    """Keys and arguments of the script that changes a record."""
    status: Status = fields.get("status", "in_progress")  # where it does not change
    event = progress_data(record, dict(fields), preview) if status == "in_progress" else {}
    is_end = status in ("completed", "failed")
    receiver = receiver_of(record.request.webhook_url or "", record.owner) if is_end else ""
    args = [
        *_arguments(record),
        "" if worker is None else json.dumps(worker),
        json.dumps(sources),
        EVENT_OF[status],
        json.dumps(event),
        json.dumps(_counted(record.request.model, fields)),
        receiver,
        *(part for pair in _encode(fields).items() for part in pair),
    ]
    return [*_keys(record), metrics.TOTALS_KEY, WEBHOOKS_KEY, line_key(receiver)], args


def owned_key(owner: str) -> str:
    """The sorted set of the ids of one owner's videos."""
    return f"framedit:videos:of:{owner}"


def _snapshot_key(video_id: str) -> str:
    return f"framedit:snapshot:{video_id}"


def _gone_key(video_id: str) -> str:
    return f"framedit:gone:{video_id}"


def _keys(record: VideoRecord) -> list[str]:
    """The keys that the scripts take first."""
    sets = [WAITING_KEY, UNFINISHED_KEY, RUNNING_KEY, _EXPIRING_KEY]
    own = [stream_key(record.id), _snapshot_key(record.id)]
    return [record_key(record.id), queue.queue_key(record), queue.job_key(record), *sets, *own]


def _all_keys(record: VideoRecord) -> list[str]:
    """The keys of a record that is removed."""
    return [*_keys(record), _ALL_KEY, *([owned_key(record.owner)] if record.owner is not None else [])]


def _arguments(record: VideoRecord) -> list[str]:
    """The arguments that the scripts take first."""
    return [record.id, queue.name_of(record), str(record.cost)]


def _counted(model: str, fields: Mapping[str, Any]) -> list[str]:
    if fields.get("status") not in ("completed", "failed"):
        return []
    return metrics.ended(model, fields["status"], (fields.get("error") or {}).get("code"))


def _encode(fields: Mapping[str, Any]) -> dict[Any, str]:
    return {name: json.dumps(value) for name, value in fields.items()}


def _to_hash(record: VideoRecord) -> dict[Any, str]:
    return _encode(record.model_dump(mode="json"))


def from_hash(raw: dict[bytes, bytes]) -> VideoRecord:
    """The record that is in a hash. Its values are JSON: put together they are parsed and checked in one go."""
    return VideoRecord.model_validate_json(b"{%b}" % b",".join(b'"%b":%b' % pair for pair in raw.items()))
