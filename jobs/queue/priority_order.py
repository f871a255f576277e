"""The order in which the claims of a worker try the priorities and the quarantine."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from jobs.videos.record import PRIORITIES, Priority

QUARANTINE: Final = "quarantine"
Lane = Priority | Literal["quarantine"]

# Of eight claims, six take the highest priority that waits, one prefers normal and one prefers low: a lower priority is
# delayed, and never starved.
_CLAIMS_PER_CYCLE = 8
_EXCEPTIONS: Mapping[int, Sequence[Priority]] = {3: ("normal", "high", "low"), 7: ("low", "normal", "high")}


def priority_order(claim_number: int) -> Sequence[Priority]:
    """Return the priorities in the order that a worker's claim tries them. `claim_number` counts from 0."""
    return _EXCEPTIONS.get(claim_number % _CLAIMS_PER_CYCLE, PRIORITIES)


def claim_order(claim_number: int, is_quarantine_next: bool) -> Sequence[Lane]:
    """Return the order with the quarantine in it: before normal priority, or last if it had the claim before."""
    order: list[Lane] = list(priority_order(claim_number))
    order.insert(order.index("normal") if is_quarantine_next else len(order), QUARANTINE)
    return order
