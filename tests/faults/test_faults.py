"""After every fault, each accepted video is completed once. `make faults` is the long form."""

import random
import sys
from collections.abc import Iterator

import pytest

from tests.faults.scenarios import FAULTS
from tests.faults.stand import Stand, standing

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and freezes processes as Linux does")

LEASE_SECONDS = 3


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(tmp_path_factory.mktemp("faults"), LEASE_SECONDS, max_attempts=2, is_forked=True) as stand:
        yield stand


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost(stand: Stand, fault: str) -> None:
    assert FAULTS[fault](stand, random.Random()) == []
