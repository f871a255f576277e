"""A resident model, loaded once, and a worker over it: real Redis, real files, all its threads."""

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

from jobs.artifacts import ArtifactStore
from jobs.records import VideoRecord, VideoRequest, new_records
from jobs.settings import Settings
from jobs.store import VideoStore
from tests import waiting
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS, make_tiny_checkpoint
from worker.finishing import Finisher
from worker.loop import Loop
from worker.main import build_worker
from worker.metrics import Meter
from worker.resident import ResidentModels, load_models
from worker.tasks import Workplace


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "tiny")
    return root


@pytest.fixture(scope="session")
def models(checkpoints: Path) -> ResidentModels:
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
    """A request for the tiny model, with changes."""
    return make_request


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true value of `condition`, which may be one of a few milliseconds."""
    return waiting.wait_for(condition, "a state of the worker", 60.0, poll_seconds=0.005)


def results_of(finisher: Finisher[Any], count: int) -> list[Any]:
    """The first so many that come, and those that come with them."""
    results: list[Any] = []

    def have_come() -> bool:
        results.extend(finisher.finished())
        return len(results) >= count

    wait_for(have_come)
    return results


@dataclass
class Bench:
    """A workplace, and workers of that name."""

    place: Workplace
    redis: Redis
    settings: Settings
    models: ResidentModels

    def queue(self, **changes: Any) -> VideoRecord:
        record = make_record(**changes)
        self.place.store.create(record)
        return record

    def worker(self, name: str = "w1", burst: bool = False, **settings: Any) -> Loop:
        changed = self.settings.model_copy(update=settings)
        return build_worker(changed, self.redis, self.models, name, self.place.meter, burst)

    def work(self, **settings: Any) -> None:
        """Until nothing waits any more."""
        loop = self.worker(burst=True, **settings)
        loop.run()
        loop.desk.sign_off()

    @contextmanager
    def working(self, name: str = "w1", **settings: Any) -> Iterator[Loop]:
        """A worker at work meanwhile, which is then asked to end at once."""
        loop = self.worker(name, **settings)
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            yield loop
        finally:
            loop.desk.worker.stop_signals += 2
            thread.join()
            loop.desk.sign_off()

    def wait_until(self, record: VideoRecord, *states: str) -> VideoRecord:
        def reached() -> VideoRecord | None:
            now = self.place.store.get(record.id)
            return now if now.status in states else None

        return VideoRecord.model_validate(wait_for(reached))


@pytest.fixture
def bench(redis: Redis, redis_url: str, store: VideoStore, models: ResidentModels, artifacts_dir: Path) -> Bench:
    meter = Meter(redis, torch.device("cpu"))
    place = Workplace("w1", store, ArtifactStore(artifacts_dir), 3, meter)
    settings = Settings(redis_url=redis_url, artifacts=str(artifacts_dir), artifact_retry_seconds=0)
    return Bench(place, redis, settings, models)
