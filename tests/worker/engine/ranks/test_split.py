"""How rows are divided among the processes of a group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.ranks.split import split_rows


@given(rows=st.integers(2, 64), ranks=st.integers(2, 9))
def test_every_row_is_computed_once_and_parts_differ_by_one(rows: int, ranks: int) -> None:
    split = split_rows(rows, ranks)
    assert split is not None
    covered = [row for rank in range(ranks) for row in range(rows)[split.part(rank)]]
    assert covered == list(range(rows))
    assert max(split.counts) - min(split.counts) <= 1


@pytest.mark.parametrize(("rows", "ranks"), [(1, 2), (0, 2), (2, 1)])
def test_a_pass_that_cannot_be_divided(rows: int, ranks: int) -> None:
    assert split_rows(rows, ranks) is None
