"""Quarantine: after the death of a worker, the videos that can have caused it run apart until the cause is found.

The suspects are the videos of the pass under way, and the one that was being prepared. They are split in halves, and
the videos of a half share passes with no others. When a worker dies at work on a half, that half is split again. A
suspect that is the only one of its group is the cause, unless another suspect of the same death has been one as often.

Other videos of the worker are no suspects. When several workers die within a short time, the cause is their machine,
and the suspects are cleared: unless it was not their first death.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from jobs.videos.record import VideoRecord

FIRST_DEATH = 1


@dataclass(frozen=True)
class Verdict:
    """The consequence of a death for one suspect.

    Attributes:
        is_cause: The video fails. Otherwise it is queued again.
        used_attempt: Whether the attempt that was begun counts.
        changes: Fields of the record to change.
    """

    record: VideoRecord
    deaths: int
    is_cause: bool
    used_attempt: bool
    changes: Mapping[str, Any]


def judge(worker: str, suspects: Sequence[VideoRecord], is_machine_fault: bool, max_attempts: int) -> list[Verdict]:
    """Return the verdicts on the suspects of the death of `worker`."""
    numbers = count()
    verdicts: list[Verdict] = []
    for group, members in _by_group(suspects).items():
        if group is not None and len(members) == 1:
            verdicts.append(_judge_isolated(members[0], suspects, max_attempts))
            continue
        for half in _halves(members):
            new_group = f"{group_prefix(worker)}{next(numbers)}"
            verdicts += [_suspect(record, new_group, is_machine_fault) for record in half]
    return verdicts


def group_prefix(worker: str) -> str:
    """Return the start of the names of the groups that the death of a worker creates."""
    return f"{worker}:"


def _suspect(record: VideoRecord, group: str, is_machine_fault: bool) -> Verdict:
    deaths = record.deaths + 1
    is_cleared = is_machine_fault and deaths == FIRST_DEATH
    changes = {"alone": not is_cleared, "quarantine": None if is_cleared else group, "deaths": deaths}
    return Verdict(record, deaths, is_cause=False, used_attempt=False, changes=changes)


def _judge_isolated(record: VideoRecord, suspects: Sequence[VideoRecord], max_attempts: int) -> Verdict:
    deaths = _deaths(record) + 1
    is_first = all(_deaths(other) + 1 < deaths for other in suspects if other.id != record.id)
    is_cause = deaths >= max_attempts and is_first
    return Verdict(record, deaths, is_cause, used_attempt=True, changes={"deaths": deaths})


def _deaths(record: VideoRecord) -> int:
    # Version 0.1 counted attempts in quarantine only, so not the first death.
    return max(record.deaths, record.attempts) if record.alone else record.deaths


def _by_group(suspects: Sequence[VideoRecord]) -> Mapping[str | None, list[VideoRecord]]:
    groups: dict[str | None, list[VideoRecord]] = {}
    for record in sorted(suspects, key=lambda record: record.id):
        groups.setdefault(record.quarantine_group, []).append(record)
    return groups


def _halves(records: Sequence[VideoRecord]) -> Iterator[Sequence[VideoRecord]]:
    middle = (len(records) + 1) // 2
    yield records[:middle]
    if records[middle:]:
        yield records[middle:]
