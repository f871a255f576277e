"""What the queue costs a video, with few and with many others waiting: real Redis, worker and records, no denoising.

`python -m benchmarks.queue` writes benchmarks/results/queue.json. The engine does a step in no time and the finisher
makes no file, so all that is left is the way of a job: from the queue to the first step, and from the last step to a
record that says `completed`.
"""

import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from redis import Redis

from benchmarks.machine import describe_machine
from cli.embedded_redis import EmbeddedRedis
from jobs.artifacts import ArtifactStore
from jobs.connection import connect
from jobs.records import Timings, VideoRecord, VideoRequest, new_records
from jobs.store import VideoStore
from worker.claims import Claims
from worker.desk import Desk, DeskSettings
from worker.engine import Denoised, Engine, Event, Progress
from worker.finishing import Finished, Finisher
from worker.loop import Loop
from worker.maintenance import Maintenance
from worker.metrics import Meter
from worker.previews import Previews
from worker.queue_worker import VideoWorker
from worker.resident import ResidentModels, load_models
from worker.resuming import Resuming
from worker.tasks import Artifacts, Workplace

RESULTS = Path(__file__).parent / "results" / "queue.json"
WAITING = (10, 100, 1_000, 10_000)
MEASURED = 200
MODEL = "demo-class"
NAME = "benchmark"


class Clock:
    """When each request was first stepped, was done, and was completed."""

    def __init__(self) -> None:
        self.stepped: dict[str, float] = {}
        self.denoised: dict[str, float] = {}
        self.completed: dict[str, float] = {}


class InstantEngine(Engine):
    """Each request has one step, which takes no time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._admitted: list[str] = []

    def admit(self, request_id: str, model: str, generation: Any, snapshot: Any = None) -> None:
        self._admitted.append(request_id)

    def evict(self, request_id: str) -> bool:
        return False

    def step(self) -> list[Event]:
        events: list[Event] = []
        for request_id in self._admitted:
            video_id = request_id.partition("/")[0]
            self._clock.stepped[video_id] = self._clock.denoised[video_id] = time.perf_counter()
            events += [Progress(request_id, 1, 1), Denoised(request_id, torch.zeros(1), 0.0)]
        self._admitted.clear()
        return events


class InstantFinisher:
    """Has made the files when it is asked to."""

    full = False

    def __init__(self) -> None:
        self._done: list[Finished[Artifacts]] = []

    def __len__(self) -> int:
        return len(self._done)

    def submit(self, request_id: str, *_: Any) -> None:
        self._done.append(Finished(request_id, {}, Timings()))

    def finished(self) -> Sequence[Finished[Artifacts]]:
        done, self._done = self._done, []
        return done

    def drop(self, request_id: str) -> bool:
        return False

    def close(self) -> None:
        pass


class TimedStore(VideoStore):
    def __init__(self, redis: Redis, clock: Clock) -> None:
        super().__init__(redis)
        self._clock = clock

    def complete(self, video_id: str, *arguments: Any) -> bool:
        done = super().complete(video_id, *arguments)
        self._clock.completed[video_id] = time.perf_counter()
        return done


def measure(redis: Redis, models: ResidentModels, waiting: int) -> dict[str, float]:
    """Milliseconds a job, one after the other, with at least `waiting` others behind it."""
    clock = Clock()
    store = TimedStore(redis, clock)
    records = _records(waiting + MEASURED)
    for start in range(0, len(records), 500):
        store.create(*records[start : start + 500])
    loop = _worker(redis, store, models, clock)
    thread = threading.Thread(target=loop.run)
    thread.start()
    while len(clock.completed) < MEASURED:
        time.sleep(0.001)
    seconds = time.perf_counter() - min(clock.stepped.values())
    loop.desk.worker.stop_signals = 2
    thread.join()
    loop.desk.sign_off()
    ends = [clock.completed[i] - clock.denoised[i] for i in clock.completed]
    return {
        "waiting": waiting,
        "per_job_ms": round(1000 * seconds / len(clock.completed), 2),
        "last_step_to_completed_ms": round(1000 * statistics.mean(ends), 2),
    }


def measure_idle(redis: Redis, models: ResidentModels) -> dict[str, float]:
    """Milliseconds from the request's record to its first step, and from its last to completed: one at a time."""
    clock = Clock()
    store = TimedStore(redis, clock)
    loop = _worker(redis, store, models, clock)
    thread = threading.Thread(target=loop.run)
    thread.start()
    begins, ends = [], []
    for record in _records(MEASURED // 2):
        asked = time.perf_counter()
        store.create(record)
        while record.id not in clock.completed:
            time.sleep(0.001)
        begins.append(clock.stepped[record.id] - asked)
        ends.append(clock.completed[record.id] - clock.denoised[record.id])
    loop.desk.worker.stop_signals = 2
    thread.join()
    loop.desk.sign_off()
    return {
        "enqueue_to_first_step_ms": round(1000 * statistics.mean(begins), 2),
        "enqueue_to_first_step_p95_ms": round(1000 * statistics.quantiles(begins, n=20)[-1], 2),
        "last_step_to_completed_ms": round(1000 * statistics.mean(ends), 2),
        "last_step_to_completed_p95_ms": round(1000 * statistics.quantiles(ends, n=20)[-1], 2),
    }


def _records(count: int) -> list[VideoRecord]:
    request = VideoRequest(
        model=MODEL,
        class_label=1,
        seed=7,
        num_frames=16,
        fps=8,
        height=64,
        width=64,
        num_inference_steps=1,
        guidance_scale=1.0,
        sampler="ddim",
    )
    return new_records(request, time.time(), count, cost=1)


def _worker(redis: Redis, store: VideoStore, models: ResidentModels, clock: Clock) -> Loop:
    finisher = cast(Finisher[Artifacts], InstantFinisher())
    maintenance = Maintenance(redis, store, 3)
    speed: Mapping[str, float] = {}
    desk = Desk(
        redis,
        VideoWorker(redis, [MODEL], NAME),
        Workplace(NAME, store, ArtifactStore(Path("unused")), 3, Meter(redis, torch.device("cpu"))),
        Claims(redis, store, [MODEL], NAME),
        DeskSettings(seats=1, rows=8, drain_seconds=0, step_timeout_seconds=300, worker_ttl_seconds=30),
        lambda: speed,
        lambda: False,
        maintenance.run,
    )
    return Loop(desk, InstantEngine(clock), models, finisher, Previews(), Resuming(0, 0))


def main() -> None:
    models = load_models(Path("checkpoints") / MODEL, torch.device("cpu"), torch.float32)
    with tempfile.TemporaryDirectory(prefix="framedit-") as folder:
        database = EmbeddedRedis(Path(folder))
        with connect(database.start()) as redis:
            idle = measure_idle(redis, models)
            queued = []
            for waiting in WAITING:
                redis.flushall()
                queued.append(measure(redis, models, waiting))
                print(queued[-1], flush=True)
        database.stop()
    results = {"machine": describe_machine("cpu"), "idle": idle, "queued": queued}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(idle)


if __name__ == "__main__":
    main()
