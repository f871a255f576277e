"""A video whose worker dies resumes from its snapshot, and its file equals that of an undisturbed run."""

import re
import signal
import sys
from pathlib import Path

import pytest

from tests.faults.stand import PATIENCE_SECONDS, Stand, standing
from tests.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sends signals as Linux does")

STEPS = 400


def test_videos_of_a_killed_worker_resume_on_another(tmp_path: Path) -> None:
    """With noise drawn at each step, and without."""
    with standing(tmp_path, lease_seconds=3, is_forked=True) as stand:
        for sampler in ("ddpm", "ddim"):
            check_that_it_resumes(stand, sampler)


def check_that_it_resumes(stand: Stand, sampler: str) -> None:
    request = {"num_inference_steps": STEPS, "sampler": sampler, "seed": 11}
    [undisturbed] = stand.post(1, **request)
    stand.wait_until_ended([undisturbed])
    [video] = stand.post(1, **request)
    wait_for(lambda: stand.store.snapshot(video), "a snapshot", PATIENCE_SECONDS)
    stand.worker_of(video).kill(signal.SIGKILL)
    stand.wait_until_ended([video])
    record = stand.store.get(video)
    assert record.status == "completed", record.error
    assert 0 < resumed_step(stand, video) < STEPS
    assert stand.digest(video) == stand.digest(undisturbed)
    assert stand.store.snapshot(video) is None


def resumed_step(stand: Stand, video: str) -> int:
    logs = "".join(worker.log.read_text() for worker in stand.workers)
    found = re.search(rf"{video}: resumed at step (\d+) of {STEPS}", logs)
    assert found is not None, logs
    return int(found[1])
