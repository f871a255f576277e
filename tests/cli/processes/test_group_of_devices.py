"""Workers that use several devices for a video, with real processes that are killed."""

import hashlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis

from cli.main import main
from cli.processes.devices import group_devices, run_devices
from cli.processes.supervisor import Supervisor
from jobs import redis_keys
from jobs.settings import Settings
from jobs.videos.record import VideoRecord, new_records
from tests.cli.processes.test_devices import TINY
from tests.e2e.conftest import command_line, descendants, environment, is_running
from tests.forked import Forked
from tests.jobs.every_role import EveryRole
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for
from worker.errors import StartupError

PATIENCE_SECONDS = 240
LONG = TINY.model_copy(update={"num_inference_steps": 300})


def test_devices_are_grouped_in_their_order() -> None:
    assert group_devices(["cuda:0", "cuda:2", "cuda:1", "cuda:3"], 2) == [["cuda:0", "cuda:2"], ["cuda:1", "cuda:3"]]
    assert group_devices(["cpu", "cuda:0"], 1) == [["cpu"], ["cuda:0"]]


@pytest.mark.parametrize(
    ("names", "reason"),
    [(["cuda:0", "cuda:1", "cuda:2"], "cannot be divided into groups of 2"), (["cuda:0", "cpu"], "GPUs only")],
)
def test_devices_that_cannot_be_grouped_are_refused(names: list[str], reason: str) -> None:
    with pytest.raises(StartupError, match=reason):
        group_devices(names, 2)


def test_a_worker_sees_the_gpus_of_its_group_only(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> None:
    """Without GPUs the processes cannot be started; their environment shows which ones they would use."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,GPU-3,1")
    started: list[Supervisor] = []
    monkeypatch.setattr(Supervisor, "run", lambda self, on_started: started.append(self))
    run_devices(Settings(redis_url=redis_url, gpus_per_video=2), "0,1,2,3")
    [supervisor] = started
    assert [program.env["CUDA_VISIBLE_DEVICES"] for program in supervisor.programs] == ["7,5", "GPU-3,1"]
    assert {program.env["FRAMEDIT_DEVICE"] for program in supervisor.programs} == {"cuda:0"}
    assert {program.env["FRAMEDIT_GPUS_PER_VIDEO"] for program in supervisor.programs} == {"2"}
    with pytest.raises(StartupError, match="not among the 4"):
        run_devices(Settings(redis_url=redis_url, gpus_per_video=2), "3,4")


@contextmanager
def workers(folder: Path, redis_url: str, *options: str) -> Iterator[Forked]:
    if not (folder / "checkpoints").exists():
        make_tiny_checkpoint(folder / "checkpoints" / "tiny")
    env = environment(folder) | {
        "FRAMEDIT_REDIS_URL": redis_url,
        "FRAMEDIT_CHECKPOINTS": str(folder / "checkpoints"),
        "FRAMEDIT_DETERMINISTIC": "true",
        "FRAMEDIT_RESUME_SECONDS": "0.2",
        "OMP_NUM_THREADS": "1",
    }
    process = Forked(main, ["worker", *options], env, folder / "log")
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ranks_of(process: Forked) -> set[int]:
    return {pid for pid in descendants(process.pid) if "worker.engine.ranks.rank" in command_line(pid)}


def leaders_of(process: Forked) -> set[int]:
    return {pid for pid in descendants(process.pid) if "cli.main worker" in command_line(pid)}


def create(store: EveryRole) -> VideoRecord:
    [record] = new_records(LONG, time.time())
    store.create(record)
    return record


def completed(store: EveryRole, video_id: str) -> bool:
    record = store.get(video_id)
    assert record.status != "failed", record.error
    return record.status == "completed"


def digest(folder: Path, video_id: str) -> str:
    return hashlib.sha256((folder / "artifacts" / video_id / "video.mp4").read_bytes()).hexdigest()


def test_a_group_that_loses_a_rank_starts_anew_and_the_video_is_the_same_bit_for_bit(
    tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    store = EveryRole(redis)
    with workers(tmp_path, redis_url, "--devices", "cpu") as alone:
        expected = create(store)
        wait_for(lambda: completed(store, expected.id), "the video of one device", PATIENCE_SECONDS)
        alone.terminate()
        assert alone.wait(60) == 0
    with workers(tmp_path, redis_url, "--devices", "cpu*2", "--gpus-per-video", "2") as group:
        video = create(store)
        wait_for(lambda: redis.exists(redis_keys.snapshot(video.id)), "a snapshot of it", PATIENCE_SECONDS)
        [rank], [leader] = ranks_of(group), leaders_of(group)
        os.kill(rank, signal.SIGKILL)
        wait_for(lambda: not is_running(leader), "the leader to end", PATIENCE_SECONDS)
        wait_for(lambda: completed(store, video.id), "the video of the new group", PATIENCE_SECONDS)
        log = (tmp_path / "log").read_text()
        assert "rank 1 on cpu was lost: killed by signal 9" in log
        assert "worker on cpu, cpu (0) exited with status 1, restarting" in log
        assert "resumed at step" in log
        group.terminate()
        assert group.wait(60) == 0
    assert digest(tmp_path, video.id) == digest(tmp_path, expected.id)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ranks_end_with_their_leader(number: signal.Signals, tmp_path: Path, redis: Redis, redis_url: str) -> None:
    store = EveryRole(redis)
    with workers(tmp_path, redis_url, "--device", "cpu", "--gpus-per-video", "3") as leader:
        video = create(store)
        wait_for(lambda: store.get(video.id).step > 0, "its first step", PATIENCE_SECONDS)
        ranks = ranks_of(leader)
        assert len(ranks) == 2
        leader.send_signal(number)
        wait_for(lambda: not any(map(is_running, ranks)), "the ranks to end", PATIENCE_SECONDS)
        leader.wait(60)
