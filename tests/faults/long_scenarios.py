"""Faults that only `make faults` injects: they need processes or settings of their own, or much time."""

import itertools
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

from jobs.access.api_keys import KeyStore
from tests.faults.child import Child, spawn
from tests.faults.scenarios import Losses
from tests.faults.stand import KINDS, PATIENCE_SECONDS, Stand
from tests.forked import REPOSITORY
from tests.full_disk import ballast
from tests.waiting import wait_for

# The last commit of version 0.1.
OLD_VERSION = "c38f2d5"


def disk_of_redis_full(stand: Stand, chance: random.Random) -> Losses:
    """Redis ends when it cannot sync a write, and cannot run again before there is space."""
    if not stand.has_disks:
        pytest.skip("needs the right to mount a file system")
    ids = stand.post(6)
    time.sleep(chance.uniform(0, 1))
    with ballast(stand.folder / "redis"):
        wait_for(lambda: not _is_running(stand.database.pid), "the end of Redis", PATIENCE_SECONDS)
        time.sleep(chance.uniform(0, 2))
    wait_for(stand.database.revive, "the database", PATIENCE_SECONDS)
    return stand.losses(ids)


def redis_killed_in_a_rewrite(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(6)
    stand.wait_until_running(ids)
    pid = stand.database.pid
    assert pid is not None
    stand.redis.bgrewriteaof()
    time.sleep(chance.uniform(0, 0.05))
    os.kill(pid, signal.SIGKILL)
    wait_for(stand.database.revive, "the database", PATIENCE_SECONDS)
    return stand.losses(ids)


def api_out_of_memory(stand: Stand, chance: random.Random) -> Losses:
    """Allocations fail for a while; then the system kills the process."""
    pid = stand.api.process.pid
    ids = stand.post(2)
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[0])
    limit = pages * resource.getpagesize() + chance.randrange(1 << 20)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    for kind in itertools.islice(itertools.cycle(KINDS), 20):
        accepted = _post(stand, {"model": "tiny", "class_label": "right", **kind})
        ids += [accepted] if accepted is not None else []
    stand.api.kill()
    return stand.losses(ids + stand.post(2))


def clock_jumps(stand: Stand, chance: random.Random) -> Losses:
    """The wall clock of the workers jumps forward by hours, then back."""
    ids: list[str] = []
    for offset in (chance.uniform(3600, 90000), -chance.uniform(3600, 90000), 0.0):
        ids += stand.post(4)
        (stand.flags / "clock").write_text(str(offset), encoding="utf-8")
        time.sleep(chance.uniform(1, 5))
    return stand.losses(ids)


def scratch_disk_read_only(stand: Stand, chance: random.Random) -> Losses:
    if not stand.has_disks:
        pytest.skip("needs the right to mount a file system")
    ids = stand.post(6)
    time.sleep(chance.uniform(0, 0.5))
    # A file system with a file that is being written cannot be remounted.
    wait_for(lambda: _remount(stand.scratch, "ro"), "a moment without an open file", PATIENCE_SECONDS, 0.005)
    time.sleep(chance.uniform(1, 3))
    assert _remount(stand.scratch, "rw")
    return stand.losses(ids)


def _remount(folder: Path, mode: Literal["ro", "rw"]) -> bool:
    return subprocess.run(["mount", "-o", f"remount,{mode}", folder], capture_output=True, check=False).returncode == 0


def expiry_under_load(stand: Stand, chance: random.Random) -> Losses:
    """With a short time to live and a limit on the wait: accepted videos complete, then expire with their files."""
    ids: list[str] = []
    completed: set[str] = set()
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    num_refused = 0
    while len(completed) < len(ids) or len(ids) < 60:
        if len(ids) < 60:
            kind = dict(KINDS[len(ids) % len(KINDS)])
            accepted = _post(stand, {"model": "tiny", "class_label": "right", **kind})
            ids += [accepted] if accepted is not None else []
            num_refused += accepted is None
        records = stand.store.fetch(set(ids) - completed)
        if failed := [f"{record.id}: {record.error}" for record in records if record.status == "failed"]:
            return failed
        completed |= {record.id for record in records if record.status == "completed"}
        if time.monotonic() > give_up_at:
            return [f"{video_id}: not seen completed" for video_id in set(ids) - completed]
    wait_for(lambda: not stand.store.fetch(ids), "the expiry of all records", PATIENCE_SECONDS)
    wait_for(lambda: not _folders(stand, ids), "the removal of all files", PATIENCE_SECONDS)
    return []


def key_revoked_under_load(stand: Stand, chance: random.Random) -> Losses:
    """No request is accepted after the revocation, and the videos that were accepted before complete."""
    keys = KeyStore(stand.redis)
    (revoked, token), (other, other_token) = keys.create("revoked"), keys.create("other")
    try:
        ids: list[str] = []
        stand.http.headers["Authorization"] = f"Bearer {token}"
        for kind in itertools.islice(itertools.cycle(KINDS), chance.randint(4, 12)):
            accepted = _post(stand, {"model": "tiny", "class_label": "right", **kind})
            ids += [accepted] if accepted is not None else []
        keys.revoke(revoked.id)
        late = _post(stand, {"model": "tiny", "class_label": "right", **KINDS[0]})
        stand.http.headers["Authorization"] = f"Bearer {other_token}"
        own = stand.post(4)
        losses = stand.losses(own)
        wait_for(lambda: all(_is_over(stand, video_id) for video_id in ids), "the end of all videos", PATIENCE_SECONDS)
        losses += [f"{record.id}: {record.error}" for record in stand.store.fetch(ids) if record.status == "failed"]
        return losses + ([] if late is None else [f"{late}: accepted after the revocation"])
    finally:
        stand.http.headers.pop("Authorization", None)
        keys.revoke(revoked.id)
        keys.revoke(other.id)
        keys.disable()


def two_versions(stand: Stand, chance: random.Random) -> Losses:
    """A worker of version 0.1 beside those of this version; each is killed."""
    with _old_worker(stand) as old:
        ids: list[str] = []

        def has_started_one() -> bool:
            ids.extend(stand.post(4))
            return b"started on" in old.log.read_bytes()

        wait_for(lambda: old.log.exists() and b"ready" in old.log.read_bytes(), "the old worker", PATIENCE_SECONDS)
        wait_for(has_started_one, "the old worker to start a video", PATIENCE_SECONDS)
        for child in (old, stand.busy_worker(chance)):
            time.sleep(chance.uniform(0, 1))
            child.kill()
        ids += stand.post(4)
        # The versions round differently: their files are not compared.
        return stand.losses(ids, compares_files=False)


# Each with its settings; None: the processes of the other faults.
LONG_FAULTS: Mapping[str, tuple[Callable[[Stand, random.Random], Losses], Mapping[str, str] | None]] = {
    "disk of Redis full": (disk_of_redis_full, None),
    "SIGKILL of Redis while it rewrites its file": (redis_killed_in_a_rewrite, None),
    "API out of memory": (api_out_of_memory, None),
    "clock of the workers jumps": (clock_jumps, None),
    "scratch disk read-only": (scratch_disk_read_only, None),
    "API key revoked under load": (key_revoked_under_load, None),
    "a worker of version 0.1 beside this version": (two_versions, None),
    "expiry and a limit on the wait under load": (
        expiry_under_load,
        {"FRAMEDIT_VIDEO_TTL_SECONDS": "60", "FRAMEDIT_MAX_WAIT_SECONDS": "60"},
    ),
}


def _post(stand: Stand, body: Mapping[str, Any]) -> str | None:
    """Post once. Returns the id of the video, None when it was not accepted or the answer was lost."""
    try:
        answer = stand.http.post("/v1/videos", json=body)
    except httpx.TransportError:
        return None
    return str(answer.json()["id"]) if answer.status_code == 200 else None


def _is_running(pid: int | None) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _is_over(stand: Stand, video_id: str) -> bool:
    return stand.store.get(video_id).status in ("completed", "failed")


def _folders(stand: Stand, ids: Sequence[str]) -> list[str]:
    return [video_id for video_id in ids if (stand.artifacts / video_id).exists()]


@contextmanager
def _old_worker(stand: Stand) -> Iterator[Child]:
    source = stand.folder / "version-0.1"
    if not source.exists():
        archive = subprocess.run(["git", "archive", OLD_VERSION], cwd=REPOSITORY, capture_output=True, check=False)
        if archive.returncode:
            pytest.skip(f"the history of this checkout does not reach version 0.1 ({OLD_VERSION})")
        source.mkdir()
        subprocess.run(["tar", "-x", "-C", source], input=archive.stdout, check=True)
        # Its checkpoint is its own, too: it knows fewer fields of a model card.
        make = (
            "from pathlib import Path; from tests import tiny_checkpoint as t; t.make_tiny_checkpoint(Path('own/tiny'))"
        )
        subprocess.run([sys.executable, "-c", make], cwd=source, check=True)
    command = [sys.executable, "-m", "cli.main", "worker"]
    env = stand.env | {"REDIS_URL": stand.database.url, "FRAMEDIT_CHECKPOINTS": str(source / "own")}
    log = stand.folder / "old.log"
    child = Child(lambda: spawn(command, env, log, source), log)
    stand.others.append(child)
    try:
        yield child
    finally:
        stand.others.remove(child)
        child.stop()
