"""The cost of the queue for a video, with few and many others waiting: real Redis, worker and records, no denoising.

`python -m benchmarks.queue` writes benchmarks/results/queue.json. The engine does a step in no time and the finisher
makes no file, so all that is left is the way of a job: from the queue to the first step, and from the last step to a
record that says `completed`.
"""

import json
import signal
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from redis import Redis

from benchmarks.parts.machine import describe_machine
from cli.processes.embedded_redis import EmbeddedRedis
from jobs.connection import connect
from jobs.queue.claim import Claims
from jobs.queue.claimed_videos import ClaimedVideos
from jobs.queue.enqueue import VideoQueue
from jobs.queue.recover import LostVideos, Recovery
from jobs.queue.rq_adapter import VideoWorker
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import Timings, VideoRecord, VideoRequest, new_records
from worker.context import WorkerContext
from worker.dispatch.dispatcher import Dispatcher, DispatcherSettings
from worker.dispatch.served_models import ServedModels
from worker.engine.engine import Denoised, Engine, Event, Progress
from worker.engine.snapshot_schedule import SnapshotSchedule
from worker.loading.adapter_cache import AdapterCache
from worker.loading.loader import Loader
from worker.loading.model_cache import ModelCache, load_models
from worker.loading.model_changes import ModelChanges
from worker.loading.model_loads import ModelLoads
from worker.loop import Loop
from worker.messages import (
    CloseFinisher,
    CloseLoader,
    ClosePreparer,
    DispatcherMessage,
    FinisherMessage,
    FinishJob,
    Inbox,
    JobFinished,
    LoaderMessage,
    LoopMessage,
    PreparerMessage,
)
from worker.metrics import Meter
from worker.output.previews import Previews
from worker.preparation.preparer import Preparer
from worker.worker import LoopHelper, Worker

RESULTS = Path(__file__).parent / "results" / "queue.json"
WAITING = (10, 100, 1_000, 10_000)
MEASURED = 200
MODEL = "demo-class"
NAME = "benchmark"


class Times:
    """When each request was first stepped, was done, and was completed."""

    def __init__(self) -> None:
        self.stepped: dict[str, float] = {}
        self.denoised: dict[str, float] = {}
        self.completed: dict[str, float] = {}


class InstantEngine(Engine):
    """Each request has one step, which takes no time."""

    def __init__(self, times: Times) -> None:
        self._times = times
        self._admitted: list[str] = []

    def admit(self, request_id: str, model: str, generation: Any, snapshot: Any = None, isolation: Any = None) -> None:
        self._admitted.append(request_id)

    def evict(self, request_id: str) -> bool:
        return False

    def cost_per_second(self) -> dict[str, float]:
        return {}

    def step(self) -> list[Event]:
        events: list[Event] = []
        for request_id in self._admitted:
            video_id = request_id.partition("/")[0]
            self._times.stepped[video_id] = self._times.denoised[video_id] = time.perf_counter()
            events += [Progress(request_id, 1, 1), Denoised(request_id, torch.zeros(1), 0.0)]
        self._admitted.clear()
        return events


class InstantFinisher:
    """Reports each job as finished at once."""

    def __init__(self, inbox: Inbox[FinisherMessage], dispatcher: Inbox[DispatcherMessage]) -> None:
        self._inbox = inbox
        self._dispatcher = dispatcher

    def run(self) -> None:
        while True:
            for message in self._inbox.receive(timeout_seconds=None):
                if isinstance(message, FinishJob):
                    self._dispatcher.post(JobFinished(message.request_id, {}, Timings()))
                elif isinstance(message, CloseFinisher):
                    return


class TimedVideos(ClaimedVideos):
    def __init__(self, redis: Redis, times: Times) -> None:
        super().__init__(redis)
        self._times = times

    def complete(self, video_id: str, *arguments: Any) -> bool:
        done = super().complete(video_id, *arguments)
        self._times.completed[video_id] = time.perf_counter()
        return done


def measure(redis: Redis, models: ModelCache, waiting: int) -> dict[str, float]:
    """Milliseconds a job, one after the other, with at least `waiting` others behind it."""
    times = Times()
    store, queue = TimedVideos(redis, times), VideoQueue(redis)
    records = _records(waiting + MEASURED)
    for start in range(0, len(records), 500):
        queue.create(*records[start : start + 500])
    worker = _worker(redis, store, models, times)
    thread = threading.Thread(target=worker.run)
    thread.start()
    while len(times.completed) < MEASURED:
        time.sleep(0.001)
    seconds = time.perf_counter() - min(times.stepped.values())
    for _ in range(2):
        worker.request_stop(signal.SIGTERM)
    thread.join()
    worker.sign_off()
    ends = [times.completed[i] - times.denoised[i] for i in times.completed]
    return {
        "waiting": waiting,
        "per_job_ms": round(1000 * seconds / len(times.completed), 2),
        "last_step_to_completed_ms": round(1000 * statistics.mean(ends), 2),
    }


def measure_idle(redis: Redis, models: ModelCache) -> dict[str, float]:
    """Milliseconds from the request's record to its first step, and from its last to completed: one at a time."""
    times = Times()
    store, queue = TimedVideos(redis, times), VideoQueue(redis)
    worker = _worker(redis, store, models, times)
    thread = threading.Thread(target=worker.run)
    thread.start()
    begins, ends = [], []
    for record in _records(MEASURED // 2):
        asked = time.perf_counter()
        queue.create(record)
        while record.id not in times.completed:
            time.sleep(0.001)
        begins.append(times.stepped[record.id] - asked)
        ends.append(times.completed[record.id] - times.denoised[record.id])
    for _ in range(2):
        worker.request_stop(signal.SIGTERM)
    thread.join()
    worker.sign_off()
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


def _worker(redis: Redis, store: ClaimedVideos, models: ModelCache, times: Times) -> Worker:
    dispatcher_inbox: Inbox[DispatcherMessage] = Inbox()
    loader_inbox: Inbox[LoaderMessage] = Inbox()
    preparer_inbox: Inbox[PreparerMessage] = Inbox()
    loop_inbox: Inbox[LoopMessage] = Inbox()
    finisher_inbox: Inbox[FinisherMessage] = Inbox()
    served = ServedModels(redis, NAME, 30, models.cards, loop_inbox)
    dispatcher = Dispatcher(
        redis,
        VideoWorker(redis, [MODEL], NAME),
        WorkerContext(NAME, store, ArtifactStore(Path("unused")), 3, Meter(redis, torch.device("cpu"))),
        Claims(redis, store, served.ids, NAME),
        served,
        DispatcherSettings(
            max_slots=1, max_batch_rows=8, drain_seconds=0, step_timeout_seconds=300, worker_ttl_seconds=30
        ),
        dispatcher_inbox,
        loop_inbox,
        finisher_inbox,
        Recovery(redis, LostVideos(redis), 3).run,
    )
    adapters = AdapterCache(Path("adapters"), max_bytes=0)
    preparer = Preparer(preparer_inbox, loop_inbox, dispatcher_inbox, adapters)
    loader = Loader(loader_inbox, loop_inbox, dispatcher_inbox, torch.device("cpu"))
    loads = ModelLoads(models, loader_inbox)
    loop = Loop(
        loop_inbox,
        dispatcher_inbox,
        preparer_inbox,
        finisher_inbox,
        InstantEngine(times),
        models,
        loads,
        ModelChanges(models, loads, lambda folder, card: models[card.id], dispatcher_inbox, idle_seconds=None),
        Previews(),
        SnapshotSchedule(0, 0),
        heartbeat_seconds=1,
    )
    finisher = InstantFinisher(finisher_inbox, dispatcher_inbox)
    helpers = [
        LoopHelper("loader", loader.run, lambda: loader_inbox.post(CloseLoader())),
        LoopHelper("preparer", preparer.run, lambda: preparer_inbox.post(ClosePreparer())),
        LoopHelper("finisher", finisher.run, lambda: finisher_inbox.post(CloseFinisher())),
    ]
    return Worker(dispatcher, loop, helpers, dispatcher_inbox)


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
