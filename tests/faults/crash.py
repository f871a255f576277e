"""Waits after a crash: short videos of high priority, and the videos that were in progress.

`python -m tests.faults.crash [file for the result as JSON]` runs two cases on two workers with 32 slots each: all
workers are killed at once, and one of the videos kills its worker at each attempt.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts.machine import describe_machine
from tests.faults.stand import PATIENCE_SECONDS, Stand, standing
from tests.faults.worker import POISON
from tests.waiting import wait_for

NUM_VICTIMS = 48
VICTIM_STEPS = 1000
NUM_SHORT = 40
SHORT_STEPS = 10
SHORT_EVERY_SECONDS = 1.0
SETTINGS = {"FRAMEDIT_MAX_SLOTS": "32", "FRAMEDIT_DETERMINISTIC": "false", "FRAMEDIT_RESUME_SECONDS": "5"}


def machine_fault(stand: Stand) -> dict[str, Any]:
    """Kill all workers at once while `NUM_VICTIMS` videos are in progress."""
    victims = stand.post(NUM_VICTIMS, num_inference_steps=VICTIM_STEPS)
    wait_until_in_progress(stand, victims)
    undisturbed = short_latencies(stand, 10)
    names = set(stand.worker_names())
    killed_at = time.time()
    for worker in stand.workers:
        worker.kill()
    wait_for(lambda: len(set(stand.worker_names()) - names) == len(stand.workers), "all workers", PATIENCE_SECONDS)
    back_at = time.time()
    latencies = short_latencies(stand, NUM_SHORT)
    wait_until_in_progress(stand, victims)
    started = [record.started_at for record in stand.store.fetch(victims) if record.started_at is not None]
    stand.wait_until_ended(victims, timeout_seconds=900)
    failed = [record.id for record in stand.store.fetch(victims) if record.status != "completed"]
    return {
        "videos": NUM_VICTIMS,
        "workers_back_s": round(back_at - killed_at, 2),
        "short_undisturbed_s": summary(undisturbed),
        "short_after_s": summary(latencies),
        "in_progress_again_s": summary([moment - killed_at for moment in started]),
        "in_progress_after_workers_back_s": summary([moment - back_at for moment in started]),
        "failed": len(failed),
    }


def poison(stand: Stand) -> dict[str, Any]:
    """One of the videos in progress kills its worker at each attempt."""
    deaths = sum(worker.deaths for worker in stand.workers)
    others = stand.post(NUM_VICTIMS // 2 - 1, num_inference_steps=VICTIM_STEPS)
    wait_until_in_progress(stand, others)
    began_at = time.monotonic()
    [evil] = stand.post(1, seed=POISON)
    latencies = short_latencies(stand, NUM_SHORT)
    stand.wait_until_ended([evil], timeout_seconds=600)
    seconds = time.monotonic() - began_at
    stand.wait_until_ended(others, timeout_seconds=900)
    error = stand.store.get(evil).error
    return {
        "videos": len(others) + 1,
        "max_attempts": stand.max_attempts,
        "deaths": sum(worker.deaths for worker in stand.workers) - deaths,
        "error": None if error is None else error.code,
        "found_after_s": round(seconds, 1),
        "short_meanwhile_s": summary(latencies),
        "other_failed": sum(record.status != "completed" for record in stand.store.fetch(others)),
    }


def wait_until_in_progress(stand: Stand, ids: Sequence[str]) -> None:
    def are_started() -> bool:
        return all(record.status not in ("queued",) for record in stand.store.fetch(ids))

    wait_for(are_started, "the start of all videos", PATIENCE_SECONDS)


def short_latencies(stand: Stand, count: int) -> list[float]:
    """Post a short video of high priority every second, whatever became of the others. Returns their latencies."""
    first = time.monotonic()
    ids: list[str] = []
    for index in range(count):
        time.sleep(max(0.0, first + index * SHORT_EVERY_SECONDS - time.monotonic()))
        ids += stand.post(1, num_inference_steps=SHORT_STEPS, priority="high")
    stand.wait_until_ended(ids)
    records = stand.store.fetch(ids)
    return [record.completed_at - record.created_at for record in records if record.completed_at is not None]


def summary(seconds: Sequence[float]) -> Mapping[str, float]:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    values = {"median": statistics.median(ordered), "p95": p95, "max": ordered[-1]}
    return {name: round(value, 2) for name, value in values.items()}


def main(path: str | None = None) -> None:
    result: dict[str, Any] = {"machine": describe_machine("cpu")}
    with tempfile.TemporaryDirectory(prefix="framedit-crash-") as folder:
        for case in (machine_fault, poison):
            with standing(Path(folder) / case.__name__, settings=SETTINGS) as stand:
                result[case.__name__] = case(stand)
                print(json.dumps({case.__name__: result[case.__name__]}), flush=True)
    if path is not None:
        Path(path).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
