"""A model that is loaded once, and workers over it: real Redis, real files, all threads."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from redis import Redis

from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import VideoRecord, VideoRequest, new_records
from jobs.videos.store import VideoStore
from tests import waiting
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS, make_tiny_checkpoint
from worker.build import build_worker
from worker.context import WorkerContext
from worker.device import record_event
from worker.loading.model_cache import LoadedModel, ModelCache, load_models
from worker.messages import CloseFinisher, DispatcherMessage, FinisherMessage, FinishJob, Inbox, JobFailed, JobFinished
from worker.metrics import Meter
from worker.output.finisher import Finisher, Upload
from worker.output.passing_faults import Retry
from worker.worker import Worker


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are tiny: more threads only wait for each other, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "tiny")
    return root


@pytest.fixture(scope="session")
def models(checkpoints: Path) -> ModelCache:
    return load_models(checkpoints, torch.device("cpu"), torch.float32)


def make_request(**changes: Any) -> VideoRequest:
    fields: dict[str, Any] = {
        "model": "tiny",
        "class_label": 1,
        "class_name": "right",
        "seed": 7,
        "num_frames": NUM_FRAMES,
        "fps": 8,
        "height": PIXELS,
        "width": PIXELS,
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "sampler": "ddim",
    }
    return VideoRequest.model_validate(fields | changes)


def make_record(**changes: Any) -> VideoRecord:
    return new_records(make_request(**changes), created_at=time.time(), cost=100)[0]


@pytest.fixture
def request_of() -> Callable[..., VideoRequest]:
    """Makes requests for the tiny model."""
    return make_request


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`, even if it is true for a few milliseconds only."""
    return waiting.wait_for(condition, "a state of the worker", 60.0, poll_seconds=0.005)


@dataclass
class RunningFinisher:
    """A finisher on its thread, and its inboxes."""

    inbox: Inbox[FinisherMessage]
    results: Inbox[DispatcherMessage]

    def submit(
        self,
        request_id: str,
        model: LoadedModel,
        latents: torch.Tensor,
        fps: int = 8,
        request: VideoRequest | None = None,
    ) -> None:
        request = request or make_request().model_copy(update={"fps": fps})
        record = make_record().model_copy(update={"id": request_id, "request": request})
        ready = record_event(latents)
        self.inbox.post(
            FinishJob(request_id, record, model.checkpoint.vae, latents, ready, 1.0, checkpoint=model.fingerprint)
        )

    def wait_for_results(self, count: int) -> list[JobFinished | JobFailed]:
        """The first `count` results, in the order of their end."""
        results: list[Any] = []

        def have_arrived() -> bool:
            results.extend(self.results.receive())
            return len(results) >= count

        wait_for(have_arrived)
        return results


@contextmanager
def finishing(upload: Upload, **limits: float) -> Iterator[RunningFinisher]:
    """Run a finisher, with the limits of a `Retry`."""
    running = RunningFinisher(Inbox(), Inbox())
    finisher = Finisher(running.inbox, running.results, upload, Retry(**limits))
    thread = threading.Thread(target=finisher.run)
    thread.start()
    try:
        yield running
    finally:
        running.inbox.post(CloseFinisher())
        thread.join()


@dataclass
class RunningWorker:
    """A worker on a thread of its own."""

    worker: Worker
    thread: threading.Thread

    def request_stop(self, times: int = 1) -> None:
        for _ in range(times):
            self.worker.request_stop(signal.SIGTERM)

    @property
    def has_ended(self) -> bool:
        return not self.thread.is_alive()


@dataclass
class Bench:
    """The stores, and workers over them."""

    context: WorkerContext
    redis: Redis
    settings: Settings
    models: ModelCache

    def queue(self, **changes: Any) -> VideoRecord:
        record = make_record(**changes)
        self.context.store.create(record)
        return record

    def worker(self, name: str = "w1", burst: bool = False, **changes: Any) -> Worker:
        """`changes` are settings, `on_hang`, `clock` and `adapter_watch`."""
        arguments = {key: changes.pop(key) for key in ("on_hang", "clock", "adapter_watch") if key in changes}
        settings = self.settings.model_copy(update=changes)
        return build_worker(settings, self.redis, self.models, name, self.context.meter, burst, **arguments)

    def run_until_empty(self, **changes: Any) -> None:
        """Run a worker until no job waits."""
        worker = self.worker(burst=True, **changes)
        worker.run()
        worker.sign_off()

    @contextmanager
    def working(self, name: str = "w1", **changes: Any) -> Iterator[RunningWorker]:
        """Run a worker during the block, then end it at once."""
        worker = self.worker(name, **changes)
        running = RunningWorker(worker, threading.Thread(target=worker.run))
        running.thread.start()
        try:
            yield running
        finally:
            running.request_stop(2)
            running.thread.join()
            worker.sign_off()

    def wait_until(self, record: VideoRecord, *states: str) -> VideoRecord:
        def reached() -> VideoRecord | None:
            now = self.context.store.get(record.id)
            return now if now.status in states else None

        return VideoRecord.model_validate(wait_for(reached))


@pytest.fixture
def bench(redis: Redis, redis_url: str, store: VideoStore, models: ModelCache, artifacts_dir: Path) -> Bench:
    meter = Meter(redis, torch.device("cpu"))
    context = WorkerContext("w1", store, ArtifactStore(artifacts_dir), 3, meter)
    settings = Settings(redis_url=redis_url, artifacts=str(artifacts_dir), artifact_retry_seconds=0)
    return Bench(context, redis, settings, models)
