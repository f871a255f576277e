"""Videos on a group of GPUs of which a process is killed at random moments: none may be lost.

    python -m benchmarks.ranks.killed_ranks [--devices 0,1] [--videos 200] [--kills 3] [--checkpoint demo-class]

A database, and `framedit worker --devices 0,1 --gpus-per-video 2` in deterministic mode, as real processes. Requests
with equal settings must give equal files, whatever was killed meanwhile. A kill comes when a random number of videos is
complete, so that it always meets work. Progress is printed and results are saved as they come.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts.machine import describe_machine
from cli.processes.embedded_redis import EmbeddedRedis
from jobs.cards import ModelCard, read_card
from jobs.connection import connect
from jobs.queue.enqueue import VideoQueue
from jobs.videos.record import VideoRequest, new_records

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parents[1] / "results"
KINDS = 4  # requests that differ in seed and guidance
_POLL_SECONDS = 0.2


def make_request(card: ModelCard, number: int) -> VideoRequest:
    """One of `KINDS` requests."""
    label = 1 if card.conditioning == "class" else None
    return VideoRequest(
        model=card.id,
        class_label=label,
        prompt=(card.examples or ["a red circle"])[0] if card.conditioning == "text" else None,
        seed=number % KINDS,
        num_frames=card.num_frames,
        fps=card.fps,
        height=card.height,
        width=card.width,
        num_inference_steps=card.num_inference_steps,
        guidance_scale=card.guidance_scale if number % 2 else 1.0,
        sampler=card.sampler,
    )


class Workers:
    """`framedit worker` over a group of devices."""

    def __init__(self, folder: Path, redis_url: str, checkpoints: Path, devices: str, per_video: int) -> None:
        self.log = folder / "worker.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FRAMEDIT_")}
        env = clean | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "FRAMEDIT_REDIS_URL": redis_url,
            "FRAMEDIT_DATA_DIR": str(folder),
            "FRAMEDIT_CHECKPOINTS": str(checkpoints),
            "FRAMEDIT_DETERMINISTIC": "true",
            "FRAMEDIT_RESUME_SECONDS": "0.5",
        }
        command = [sys.executable, "-P", "-m", "cli.main", "worker", "--devices", devices]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--gpus-per-video", str(per_video)], env=env, cwd=folder, stdout=output, stderr=output
            )

    def ranks(self) -> list[int]:
        """The processes of the group that have joined it, the leader not included."""
        return [pid for pid in _descendants(self.process.pid) if b"worker.engine.ranks.rank" in _command_line(pid)]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _descendants(pid: int) -> set[int]:
    children: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the process has ended meanwhile
            children |= {int(child) for child in task.read_text().split()}
    return children.union(*map(_descendants, children))


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Trial:
    """Videos on workers whose ranks are killed."""

    def __init__(self, store: VideoQueue, workers: Workers, card: ModelCard, artifacts: Path, videos: int) -> None:
        self._store = store
        self._workers = workers
        self._artifacts = artifacts
        self._records = new_records(make_request(card, 0), time.time(), videos)
        self._records = [
            record.model_copy(update={"request": make_request(card, number)})
            for number, record in enumerate(self._records)
        ]
        self.kills: list[dict[str, Any]] = []
        self._started = time.monotonic()

    def run(self, num_kills: int, chooser: random.Random, max_seconds: float) -> dict[str, Any]:
        """Kill a rank when random numbers of videos are complete, until all have ended or the time is over."""
        self._store.create(*self._records)
        thresholds = sorted(chooser.sample(range(1, int(len(self._records) * 0.9)), num_kills))
        while (seconds := time.monotonic() - self._started) < max_seconds:
            states = Counter(record.status for record in self._store.fetch(record.id for record in self._records))
            print(f"{seconds:6.1f} s  {dict(states)}  {len(self.kills)} kills", flush=True)
            if states["completed"] + states["failed"] == len(self._records):
                break
            if thresholds and states["completed"] >= thresholds[0] and self._kill(chooser, states["completed"]):
                del thresholds[0]
            time.sleep(_POLL_SECONDS)
        return self._result()

    def _kill(self, chooser: random.Random, num_completed: int) -> bool:
        """Kill a rank of a group that works. Returns False where no video is in progress yet."""
        ranks = self._workers.ranks()
        if not ranks or not any(record.step for record in self._store.unfinished()):
            return False
        time.sleep(chooser.uniform(0, 0.5))
        rank = chooser.choice(ranks)
        os.kill(rank, signal.SIGKILL)
        self.kills.append({"seconds": round(time.monotonic() - self._started, 1), "videos_completed": num_completed})
        deadline = time.monotonic() + 60
        while rank in self._workers.ranks() and time.monotonic() < deadline:
            time.sleep(0.05)
        return True

    def _result(self) -> dict[str, Any]:
        records = self._store.fetch(record.id for record in self._records)
        files: dict[int, set[str]] = {}
        for number, record in enumerate(records):
            if record.status == "completed":
                content = (self._artifacts / record.id / "video.mp4").read_bytes()
                files.setdefault(number % KINDS, set()).add(hashlib.sha256(content).hexdigest())
        states = Counter(record.status for record in records)
        log = self._workers.log.read_text()
        return {
            "videos": len(self._records),
            "completed": states["completed"],
            "failed": states["failed"],
            "lost": len(self._records) - states["completed"] - states["failed"],
            "different_files_of_a_request": max((len(digests) for digests in files.values()), default=0),
            "kills": self.kills,
            "restarts": log.count(", restarting in"),
            "resumed": log.count(": resumed at step"),
            "seconds": round(time.monotonic() - self._started, 1),
        }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", default="0,1")
    parser.add_argument("--gpus-per-video", type=int, default=2)
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "demo-class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=220)
    parser.add_argument("--output", type=Path, default=RESULTS / "killed-ranks.json")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        database = EmbeddedRedis(folder / "redis")
        url = database.start()
        workers = Workers(folder, url, options.checkpoint, options.devices, options.gpus_per_video)
        try:
            with connect(url) as redis:
                card = read_card(options.checkpoint)
                trial = Trial(VideoQueue(redis), workers, card, folder / "artifacts", options.videos)
                result = trial.run(options.kills, random.Random(options.seed), options.seconds)
        finally:
            workers.stop()
            database.stop()
            print("\n".join(workers.log.read_text().splitlines()[-40:]), flush=True)
    device = "cpu" if "cpu" in options.devices else "cuda"
    content = {"machine": describe_machine(device), "devices": options.devices, "model": card.id, **result}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
