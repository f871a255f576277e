"""One worker process for each device, with real processes that are killed."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cli.local.health import UnhealthyError, check_worker
from cli.main import main
from cli.processes.devices import parse_devices
from jobs.cards import announce, workers_alive
from jobs.settings import Settings
from jobs.videos.record import VideoRequest, new_records
from tests.e2e.conftest import command_line, descendants, environment
from tests.forked import Forked
from tests.jobs.every_role import EveryRole
from tests.tiny_checkpoint import NUM_FRAMES, PIXELS, make_tiny_checkpoint
from tests.waiting import wait_for
from worker.errors import StartupError

TINY = VideoRequest(
    model="tiny",
    class_label=1,
    seed=7,
    num_frames=NUM_FRAMES,
    fps=8,
    height=PIXELS,
    width=PIXELS,
    num_inference_steps=4,
    guidance_scale=2.0,
    sampler="ddim",
)


@pytest.mark.parametrize(
    ("text", "names"),
    [("0,1", ["cuda:0", "cuda:1"]), ("cuda:2", ["cuda:2"]), ("cpu*3", ["cpu"] * 3), ("cpu, 0", ["cpu", "cuda:0"])],
)
def test_a_list_of_devices(text: str, names: list[str]) -> None:
    assert parse_devices(text) == names


def test_all_devices_are_those_of_the_machine() -> None:
    names = parse_devices("all")
    assert names == ["cpu"] or all(name.startswith("cuda:") for name in names)


@pytest.mark.parametrize("text", ["", "gpu", "cpu*0", "0,0", "cuda:1,1", "-1", "0;1"])
def test_an_invalid_list_of_devices_is_refused(text: str) -> None:
    with pytest.raises(StartupError, match="devices is"):
        parse_devices(text)


@pytest.fixture
def two_workers(tmp_path: Path, redis_url: str) -> Iterator[Forked]:
    make_tiny_checkpoint(tmp_path / "checkpoints" / "tiny")
    env = environment(tmp_path) | {
        "FRAMEDIT_REDIS_URL": redis_url,
        "FRAMEDIT_CHECKPOINTS": str(tmp_path / "checkpoints"),
    }
    process = Forked(main, ["worker", "--devices", "cpu*2"], env, tmp_path / "log")
    yield process
    process.kill()
    process.wait()


def test_a_killed_worker_loses_its_video_to_another_and_is_restarted(
    two_workers: Forked, tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    store = EveryRole(redis)

    def workers() -> set[int]:
        return {pid for pid in descendants(two_workers.pid) if "cli.main worker" in command_line(pid)}

    names = wait_for(lambda: len(found := workers_alive(redis, "tiny")) == 2 and found, "two workers", 240)
    check_worker(Settings(redis_url=redis_url))
    [record] = new_records(TINY.model_copy(update={"num_inference_steps": 1000}), time.time())
    store.create(record)
    started = wait_for(lambda: (found := store.get(record.id)).step > 0 and found, "its first step", 240)
    assert started.worker in names
    [busy] = [pid for pid in workers() if str(started.worker) in command_line(pid)]
    os.kill(busy, signal.SIGKILL)
    wait_for(lambda: store.get(record.id).worker not in (None, started.worker), "another worker to have it", 240)
    wait_for(lambda: len(workers_alive(redis, "tiny") - {started.worker}) == 2, "a new worker for the device", 240)
    assert "was killed by SIGKILL, restarting in" in (tmp_path / "log").read_text()
    two_workers.terminate()
    assert two_workers.wait(60) == 0
    assert store.get(record.id).status in ("queued", "completed")


def test_a_machine_without_a_live_worker_is_unhealthy(redis: Redis, redis_url: str, text_card: object) -> None:
    announce(redis, text_card, "elsewhere-1", ttl_seconds=600)  # type: ignore[arg-type]
    with pytest.raises(UnhealthyError, match="alive workers: elsewhere-1"):
        check_worker(Settings(redis_url=redis_url))
