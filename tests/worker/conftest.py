"""A resident model, loaded once, and a place to work at: real Redis, real files."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from redis import Redis

from jobs.artifacts import ArtifactStore
from jobs.records import VideoRecord, VideoRequest, new_records
from jobs.store import VideoStore
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS, make_tiny_checkpoint
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
    return new_records(make_request(**changes), created_at=time.time())[0]


@pytest.fixture
def request_of() -> Callable[..., VideoRequest]:
    """A request for the tiny model, with changes."""
    return make_request


@dataclass
class Bench:
    """A workplace, and what a test does around it."""

    place: Workplace
    redis: Redis
    stopping: list[bool] = field(default_factory=list)

    def queue(self, **changes: Any) -> VideoRecord:
        record = make_record(**changes)
        self.place.store.create(record)
        return record


@pytest.fixture
def bench(redis: Redis, store: VideoStore, models: ResidentModels, artifacts_dir: Path) -> Bench:
    stopping: list[bool] = []
    meter = Meter(redis, torch.device("cpu"))
    place = Workplace("w1", models, store, ArtifactStore(artifacts_dir), 3, lambda: bool(stopping), meter)
    return Bench(place, redis, stopping)
