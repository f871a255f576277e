"""Videos that version 0.1 queued are finished by this version.

`data/version_0_1.json` holds the database that the last commit of version 0.1 (c38f2d5) left: server and workers
were killed with videos completed, cancelled, in progress, in quarantine and queued, for two API keys.
"""

import base64
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from redis import Redis

from jobs import redis_keys
from jobs.queue.recover import Recovery
from jobs.settings import Settings
from jobs.telemetry.metrics import collect
from jobs.videos.webhook_schedule import Webhooks
from tests.jobs.every_role import EveryRole
from tests.server.serving import serving
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for
from worker.build import build_worker
from worker.loading.model_cache import load_models
from worker.metrics import Meter

WRITTEN: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "version_0_1.json").read_text(encoding="utf-8"))
VIDEOS: dict[str, list[str]] = WRITTEN["videos"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A tiny model is no faster with more threads, and much slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def bytes_of(value: Any) -> bytes:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else str(value).encode()


@pytest.fixture
def database(redis: Redis) -> Redis:
    """The database as version 0.1 left it, its leases expired."""
    for key, (kind, value) in WRITTEN["keys"].items():
        if kind == "hash":
            redis.hset(key, mapping={name: bytes_of(field) for name, field in value.items()})
        elif kind == "zset":
            redis.zadd(key, value)
        elif kind == "set":
            redis.sadd(key, *value)
        elif kind == "list":
            redis.rpush(key, *value)
        elif kind == "string":
            redis.set(key, bytes_of(value))
        else:
            for entry_id, fields in value:
                redis.xadd(key, {name: bytes_of(field) for name, field in fields.items()}, id=entry_id)
    return redis


@pytest.fixture
def settings(database: Redis, redis_url: str, tmp_path: Path) -> Settings:
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    mark = tmp_path / "artifacts" / ".framedit" / "database"
    mark.parent.mkdir(parents=True)
    mark.write_bytes(bytes_of(WRITTEN["keys"][redis_keys.ARTIFACT_STORE][1]))
    folders = {"data_dir": tmp_path, "artifacts": tmp_path / "artifacts", "checkpoints": tmp_path / "checkpoints"}
    return Settings(redis_url=redis_url, device="cpu", resume_seconds=0.1, **folders)


@pytest.fixture
def api(settings: Settings) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {WRITTEN['tokens']['first']}"}
    with serving(settings) as url, httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield client


def test_a_worker_finishes_every_video(database: Redis, settings: Settings, store: EveryRole) -> None:
    assert {record.status for record in store.fetch(VIDEOS["unfinished"])} == {"queued", "in_progress"}
    cpu = torch.device("cpu")
    worker = build_worker(
        settings, database, load_models(settings.checkpoints, cpu, torch.float32), "new-1", Meter(database, cpu)
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        wait_for(lambda: not store.unfinished_ids(), "the end of all videos", 180)
    finally:
        for _ in range(2):
            worker.request_stop(signal.SIGTERM)
        thread.join()
        worker.sign_off()
    records = store.fetch(VIDEOS["unfinished"])
    assert [(record.status, record.error) for record in records] == [("completed", None)] * len(records)
    Recovery(database, store, settings.max_attempts).clean_up()  # version 0.1 counted one of the costs twice
    assert database.hvals(redis_keys.WAITING_COST) == []
    assert database.smembers(redis_keys.IN_PROGRESS) == set()
    receivers = {due.receiver: due.video_id for due in Webhooks(database).take(10, 10, 10, {})}
    assert VIDEOS["unfinished"][1] in receivers.values()


def test_clients_keep_their_keys_videos_and_idempotency_keys(api: httpx.Client) -> None:
    listed = api.get("/v1/videos", params={"limit": 100}).json()["data"]
    [completed] = VIDEOS["completed"]
    assert {video["id"]: video["status"] for video in listed}[completed] == "completed"
    assert not {*VIDEOS["cancelled"], *VIDEOS["deleted"]} & {video["id"] for video in listed}  # the other key's
    body = {"model": "tiny", "class_label": "right", "seed": 1, "num_inference_steps": 4}
    body |= {"webhook_url": "http://example.com/hook", "metadata": {"note": "café"}}
    again = api.post("/v1/videos", json=body, headers={"Idempotency-Key": "first-request"})
    assert (again.status_code, again.headers.get("Idempotent-Replayed")) == (200, "true"), again.text
    assert again.json()["id"] == completed
    assert api.get("/v1/videos", headers={"Authorization": "Bearer fd-unknown"}).status_code == 401


def test_webhooks_and_metrics_go_on(database: Redis) -> None:
    due = Webhooks(database).take(10, 10, 10, {})
    assert [(hook.video_id, hook.attempt > 1) for hook in due] == [(VIDEOS["completed"][0], True)]
    [ended] = [family for family in collect(database) if family.name == "framedit_videos"]
    assert {sample.labels["status"]: sample.value for sample in ended.samples} == {"completed": 1, "failed": 1}
