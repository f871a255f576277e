"""How rows and frames are divided among the processes of a group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.ranks.split import PassShape, split_frames, split_rows


@given(rows=st.integers(2, 64), ranks=st.integers(2, 9))
def test_every_row_is_computed_once_and_parts_differ_by_one(rows: int, ranks: int) -> None:
    split = split_rows(PassShape(rows, 16, 0), ranks)
    assert split is not None
    assert split.frames(0) is None
    covered = [row for rank in range(ranks) for row in range(rows)[split.rows(rank) or slice(0)]]
    assert covered == list(range(rows))
    assert max(split.counts) - min(split.counts) <= 1


@given(frames=st.integers(2, 64), ranks=st.integers(2, 9))
def test_every_frame_is_computed_once_by_a_rank_that_has_some(frames: int, ranks: int) -> None:
    split = split_frames(PassShape(1, frames, 0), ranks)
    if frames < ranks:
        assert split is None
        return
    assert split is not None
    parts = [split.frames(rank) for rank in range(ranks)]
    assert [frame for part in parts if part is not None for frame in range(frames)[part.part]] == list(range(frames))
    assert min(split.counts) >= 1


@pytest.mark.parametrize(("rows", "ranks"), [(1, 2), (0, 2), (2, 1)])
def test_a_pass_that_cannot_be_divided(rows: int, ranks: int) -> None:
    assert split_rows(PassShape(rows, 16, 0), ranks) is None
