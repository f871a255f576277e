"""The short form of `make abuse`."""

from collections.abc import Iterator

import pytest

from tests.abuse.attacks import ATTACKS
from tests.abuse.card import CARD
from tests.abuse.report import MAX_GROWTH_BYTES, measure
from tests.abuse.server import Server, running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("abuse"), CARD) as server:
        yield server


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little(server: Server, attack: str) -> None:
    """The bars on latency are those of `make abuse`: other tests run beside this one."""
    cost = measure(server, attack, scale=0.1)
    assert cost.growth_bytes <= MAX_GROWTH_BYTES, cost
    assert cost.livez_seconds < 10, cost
    assert cost.request_seconds < 15, cost
    assert cost.lost == 0
