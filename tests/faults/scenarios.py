"""The faults: each posts videos, injects a fault at a random moment, and returns the losses."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.faults.stand import PATIENCE_SECONDS, Stand
from tests.faults.worker import POISON, POISON_TO_PREPARE
from tests.full_disk import ballast, small_disk, top_up
from tests.waiting import wait_for

Losses = list[str]

# Halving 5 videos until one is left, one death that was not yet attributed, one of two workers at once.
_MAX_BISECTIONS = 5


def worker_killed(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(6)
    stand.wait_until_running(ids)
    time.sleep(chance.uniform(0, 1))
    stand.busy_worker(chance).kill()
    return stand.losses(ids)


def all_workers_killed(stand: Stand, chance: random.Random) -> Losses:
    """A fault of the machine: no video goes into quarantine, and short videos of high priority go first."""
    ids = stand.post(8)
    stand.wait_until_running(ids)
    time.sleep(chance.uniform(0, 0.5))
    for worker in stand.workers:
        worker.kill()
    return stand.losses(ids + stand.post(2, priority="high"))


def api_killed(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(3)
    time.sleep(chance.uniform(0, 0.3))
    stand.api.kill()
    return stand.losses(ids + stand.post(3))


def redis_killed(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(6)
    time.sleep(chance.uniform(0, 1))
    pid = stand.database.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    time.sleep(chance.uniform(0, 1))
    wait_for(stand.database.revive, "the database", PATIENCE_SECONDS)
    return stand.losses(ids)


def worker_frozen(stand: Stand, chance: random.Random) -> Losses:
    """For longer than its lease: other workers then have its videos or have completed them."""
    ids = stand.post(8)
    stand.wait_until_running(ids)
    time.sleep(chance.uniform(0, 0.5))
    worker = stand.busy_worker(chance)
    worker.kill(signal.SIGSTOP)
    time.sleep(3 * (stand.lease_seconds or 15))
    worker.kill(signal.SIGCONT)
    return stand.losses(ids)


def connection_cut(stand: Stand, chance: random.Random) -> Losses:
    """For a minute, with a short lease for twice the lease."""
    ids = stand.post(8)
    time.sleep(chance.uniform(0, 0.5))
    stand.proxy.cut()
    time.sleep(60 if stand.lease_seconds is None else 2 * stand.lease_seconds)
    stand.proxy.heal()
    return stand.losses(ids)


def no_room_to_encode(stand: Stand, chance: random.Random) -> Losses:
    """The disk is full on which ffmpeg and the pictures are written."""
    return _without_room(stand, chance, stand.scratch, "video files could not be written, retrying")


def no_room_to_store(stand: Stand, chance: random.Random) -> Losses:
    """The disk of the artifact folder is full."""
    return _without_room(stand, chance, stand.artifacts, "cannot store the")


def _without_room(stand: Stand, chance: random.Random, disk: Path, noticed: str) -> Losses:
    """Until a worker has noticed and a random time longer; where nothing can be mounted, with a limit on the size of
    the workers' files in place of a full disk, which holds for their logs, too."""
    before = len(stand.logged(noticed))
    ids = stand.post(4)
    time.sleep(chance.uniform(0, 0.5))
    if stand.has_disks:
        with ballast(disk) as path:
            ids += stand.post(2)  # those before may have been faster

            def is_noticed() -> bool:
                top_up(path)
                return len(stand.logged(noticed)) > before

            wait_for(is_noticed, "a worker that finds no room", PATIENCE_SECONDS)
            time.sleep(chance.uniform(0, 2))
    else:
        with _no_file_grows(stand):
            time.sleep(chance.uniform(0.2, 0.8))
    return stand.losses(ids)


def folder_not_writable(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(6)
    time.sleep(chance.uniform(0, 0.5))
    with read_only(stand.artifacts):
        time.sleep(chance.uniform(1, 2))
    return stand.losses(ids)


def ffmpeg_killed(stand: Stand, chance: random.Random) -> Losses:
    (stand.flags / "kill-ffmpeg").touch()
    losses = stand.losses(stand.post(4))
    assert not (stand.flags / "kill-ffmpeg").exists()
    return losses


def out_of_memory(stand: Stand, chance: random.Random) -> Losses:
    (stand.flags / "oom").touch()
    losses = stand.losses(stand.post(4))
    assert not (stand.flags / "oom").exists()
    return losses


def poison(stand: Stand, chance: random.Random) -> Losses:
    return _poisoned(stand, POISON)


def poison_to_prepare(stand: Stand, chance: random.Random) -> Losses:
    return _poisoned(stand, POISON_TO_PREPARE)


def _poisoned(stand: Stand, seed: int) -> Losses:
    """A request that kills its worker each time fails with the reason, and the other videos are completed.

    Its last attempts are in passes of its own, after bisection has isolated it."""
    deaths = _deaths(stand)
    ids = stand.post(2)
    [evil] = stand.post(1, seed=seed)
    ids += stand.post(2)
    losses = stand.losses(ids)
    stand.wait_until_ended([evil])
    error = stand.get(evil)["error"]
    if not error or error["code"] != "worker_lost":
        losses.append(f"the poison ended with {error}")
    if not stand.max_attempts <= _deaths(stand) - deaths <= stand.max_attempts + _MAX_BISECTIONS:
        losses.append(f"the poison killed {_deaths(stand) - deaths} workers")
    return losses


def _deaths(stand: Stand) -> int:
    return sum(worker.deaths for worker in stand.workers)


FAULTS: Mapping[str, Callable[[Stand, random.Random], Losses]] = {
    "SIGKILL of a worker mid-batch": worker_killed,
    "SIGKILL of all workers at once": all_workers_killed,
    "SIGKILL of the API": api_killed,
    "SIGKILL and restart of Redis": redis_killed,
    "SIGSTOP of a worker past its lease, SIGCONT": worker_frozen,
    "connection to Redis cut": connection_cut,
    "disk full while encoding": no_room_to_encode,
    "disk full while storing": no_room_to_store,
    "artifact folder not writable": folder_not_writable,
    "ffmpeg killed": ffmpeg_killed,
    "out of memory at a step": out_of_memory,
    "a request that kills its worker": poison,
    "a request that kills its worker while it is prepared": poison_to_prepare,
}


def form_of(fault: str, stand: Stand) -> str:
    """Its name, with what stood for it where that depends on the machine."""
    if not fault.startswith("disk full"):
        return fault
    return f"{fault} ({'a full file system' if stand.has_disks else 'a limit on the size of files'})"


def storm(stand: Stand, chance: random.Random, videos: int, seconds: float) -> Losses:
    """Kills at random of workers, of the API and of Redis, for so long, while videos are asked for."""
    give_up_at = time.monotonic() + seconds
    ids: list[str] = []
    while time.monotonic() < give_up_at or len(ids) < videos:
        ids += stand.post(min(10, videos - len(ids)))
        time.sleep(chance.uniform(0, seconds / 30))
        chance.choice([stand.workers[0].kill, stand.workers[1].kill, stand.api.kill, lambda: _bounce(stand)])()
    return stand.losses(ids)


def _bounce(stand: Stand) -> None:
    pid = stand.database.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(stand.database.revive, "the database", PATIENCE_SECONDS)


@contextmanager
def _no_file_grows(stand: Stand) -> Iterator[None]:
    pids = [worker.process.pid for worker in stand.workers]
    before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
    for pid, (_, hard) in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        yield
    finally:
        for pid, limit in zip(pids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """By a mount where this user may, otherwise by its permissions, which bind all users but root."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    with small_disk(folder, "ro") as is_mounted:
        if is_mounted:
            yield
            return
    aside = folder.with_name("aside")
    folder.rename(aside)  # mounts are not allowed here: no folder at all
    folder.touch()
    try:
        yield
    finally:
        folder.unlink()
        aside.rename(folder)
