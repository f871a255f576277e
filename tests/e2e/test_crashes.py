"""Accepted videos are durable: after any crash, every video is completed and nothing is left behind."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import is_running, serving
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_accepted_videos_survive_the_death_of_all_processes(tmp_path: Path, checkpoints: Path) -> None:
    with serving(tmp_path / "data", checkpoints) as first:
        started, waiting = first.post(num_inference_steps=100), first.post()
        first.wait_for_step(started["id"])
        first.kill_all()
    with serving(tmp_path / "data", checkpoints) as second:
        for video in (started, waiting):
            done = second.wait_until(video["id"], "completed", "failed")
            assert done["status"] == "completed", done
            assert second.http.get(f"/v1/videos/{video['id']}/content").status_code == 200


def test_a_killed_worker_and_database_are_restarted_and_the_video_is_completed(
    tmp_path: Path, checkpoints: Path
) -> None:
    with serving(tmp_path / "data", checkpoints, forked=False) as served:
        video = served.post(num_inference_steps=200)
        served.wait_for_step(video["id"])
        worker = served.pid_of("cli.main worker")
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: not is_running(worker), "the worker's end")
        served.wait_for_step(video["id"])
        os.kill(served.pid_of("valkey-server"), signal.SIGKILL)
        done = served.wait_until(video["id"], "completed", "failed")
        assert done["status"] == "completed", done
        assert "worker was killed by SIGKILL, restarting in" in served.log.read_text()


def test_ctrl_c_returns_the_video_to_the_queue_and_leaves_no_process(tmp_path: Path, checkpoints: Path) -> None:
    with serving(tmp_path / "data", checkpoints, FRAMEDIT_DRAIN_SECONDS="0", forked=False) as served:
        video = served.post(num_inference_steps=1000)
        served.wait_for_step(video["id"])
        processes = served.processes()
        assert len(processes) == 4
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(20) == 0
        assert not [pid for pid in processes if is_running(pid)]
        log = served.log.read_text()
        assert f"{video['id']}: handed back to the queue" in log
        assert "Traceback" not in log


def test_the_processes_end_with_a_killed_supervisor(tmp_path: Path, checkpoints: Path) -> None:
    with serving(tmp_path / "data", checkpoints, forked=False) as served:
        processes = served.processes()
        served.process.kill()
        wait_for(lambda: not [pid for pid in processes if is_running(pid)], "the end of all processes")
