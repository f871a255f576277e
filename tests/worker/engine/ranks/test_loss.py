"""Processes of a group that die."""

import os
import signal

import pytest

from tests.waiting import wait_for
from tests.worker.engine.ranks.conftest import start_group
from tests.worker.engines import FullBatchScheduler, make_generation, make_models
from worker.engine.engine import Engine, EngineSettings


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_rank_that_dies_is_noticed_at_once_without_a_pass(number: signal.Signals) -> None:
    lost: list[str] = []
    ranks = start_group(3, lost)
    os.kill(ranks.pids[1], number)
    wait_for(lambda: lost, "the loss to be noticed")
    assert "rank 2 on cpu was lost" in lost[0]
    assert f"killed by signal {int(number)}" in lost[0]
    ranks.close()


def test_a_pass_with_a_dead_rank_ends_the_group_and_does_not_wait() -> None:
    lost: list[str] = []
    ranks = start_group(2, lost)
    engine = Engine(make_models("local"), FullBatchScheduler(), EngineSettings(), ranks=ranks)
    engine.admit("video", "class", make_generation("class", num_frames=4, num_inference_steps=100))
    engine.step()
    os.kill(ranks.pids[0], signal.SIGKILL)
    for _ in range(100):
        if lost:
            break
        engine.step()  # the process would have ended by now; here its requests only fail
    assert lost
    ranks.close()


def test_a_closed_group_has_no_processes_and_nothing_was_lost() -> None:
    lost: list[str] = []
    ranks = start_group(2, lost)
    [pid] = ranks.pids
    ranks.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert lost == []
