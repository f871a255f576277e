"""The deadlines of a drain."""

from worker.dispatch.drain import Drain


class Timeline:
    def __init__(self, drain_seconds: float) -> None:
        self.now = 1000.0
        self.drain = Drain(drain_seconds, lambda: self.now)

    def at(self, seconds: float) -> tuple[bool, bool]:
        """Whether the drain hands back, and is over, so many seconds after its begin."""
        self.now = 1000.0 + seconds
        return self.drain.is_handing_back, self.drain.is_over


def test_nothing_is_handed_back_before_the_drain_begins() -> None:
    assert Timeline(drain_seconds=0).at(3600) == (False, False)


def test_a_drain_hands_back_after_its_time_and_gives_up_soon_after() -> None:
    timeline = Timeline(drain_seconds=10)
    timeline.drain.begin()
    assert [timeline.at(seconds) for seconds in (9, 10, 14, 15)] == [
        (False, False),
        (True, False),
        (True, False),
        (True, True),
    ]


def test_a_skipped_drain_hands_back_at_once() -> None:
    timeline = Timeline(drain_seconds=3600)
    timeline.drain.begin()
    timeline.drain.skip()
    assert timeline.at(0) == (True, False)
    assert timeline.at(5) == (True, True)
