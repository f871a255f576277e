"""Groups of this process and rank processes on the CPU."""

from collections.abc import Iterator

import pytest
import torch

from worker.engine.ranks.rank_group import RankGroup


def start_group(size: int, lost: list[str] | None = None) -> RankGroup:
    """A group that has joined, and shares no pass by frames. The reasons of lost ranks are appended to `lost`."""
    reasons = [] if lost is None else lost
    ranks = RankGroup([torch.device("cpu")] * size, timeout_seconds=120, on_lost=reasons.append)
    ranks.join()
    return ranks


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ranks have as many threads as this process: their number decides how products are rounded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[2, 3])
def ranks(request: pytest.FixtureRequest) -> Iterator[RankGroup]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with start_group(request.param) as group:
            yield group
