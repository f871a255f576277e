"""The faults: each asks for videos, breaks something at a random moment, and tells what was lost."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.faults.stand import PATIENCE_SECONDS, POISON, Stand
from tests.full_disk import ballast, small_disk, top_up
from tests.waiting import wait_for

Losses = list[str]


def worker_killed(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(6)
    stand.wait_until_running(ids)
    time.sleep(chance.uniform(0, 1))
    stand.busy_worker(chance).kill()
    return stand.losses(ids)


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
    """Longer than its lease: it comes back when its videos are another's, or done."""
    ids = stand.post(8)
    stand.wait_until_running(ids)
    time.sleep(chance.uniform(0, 0.5))
    worker = stand.busy_worker(chance)
    worker.kill(signal.SIGSTOP)
    time.sleep(3 * (stand.lease_seconds or 15))
    worker.kill(signal.SIGCONT)
    return stand.losses(ids)


def connection_cut(stand: Stand, chance: random.Random) -> Losses:
    """For a minute, or with a short lease for twice that."""
    ids = stand.post(8)
    time.sleep(chance.uniform(0, 0.5))
    stand.proxy.cut()
    time.sleep(60 if stand.lease_seconds is None else 2 * stand.lease_seconds)
    stand.proxy.heal()
    return stand.losses(ids)


def no_room_to_encode(stand: Stand, chance: random.Random) -> Losses:
    """The disk is full on which ffmpeg and the still pictures are at work."""
    return _without_room(stand, chance, stand.scratch, "could not be written, trying again")


def no_room_to_store(stand: Stand, chance: random.Random) -> Losses:
    """The disk of the artifact folder is full."""
    return _without_room(stand, chance, stand.artifacts, "cannot store the")


def _without_room(stand: Stand, chance: random.Random, disk: Path, noticed: str) -> Losses:
    """Until a worker has noticed and a random moment longer; where nothing can be mounted, with a limit on the size of
    the workers' files in place of a full disk, which holds for their logs, too."""
    before = stand.logged(noticed)
    ids = stand.post(4)
    time.sleep(chance.uniform(0, 0.5))
    if stand.has_disks:
        with ballast(disk) as path:
            ids += stand.post(2)  # those before may have been faster

            def is_noticed() -> bool:
                top_up(path)
                return stand.logged(noticed) > before

            wait_for(is_noticed, "a worker that finds no room", PATIENCE_SECONDS)
            time.sleep(chance.uniform(0, 2))
    else:
        with _no_file_grows(stand):
            time.sleep(chance.uniform(0.2, 0.8))
    return stand.losses(ids)


def folder_not_writable(stand: Stand, chance: random.Random) -> Losses:
    ids = stand.post(6)
    time.sleep(chance.uniform(0, 0.5))
    with _read_only(stand):
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
    """A request that kills its worker, each time: it fails with the reason once it has killed as many as it may, and
    its neighbours are made."""
    deaths = _deaths(stand)
    ids = stand.post(2)
    [evil] = stand.post(1, seed=POISON)
    ids += stand.post(2)
    losses = stand.losses(ids)
    stand.wait_until_ended([evil])
    error = stand.get(evil)["error"]
    if not error or error["code"] != "worker_lost":
        losses.append(f"the poison ended with {error}")
    if _deaths(stand) - deaths != stand.max_attempts:
        losses.append(f"the poison killed {_deaths(stand) - deaths} workers")
    return losses


def _deaths(stand: Stand) -> int:
    return sum(worker.deaths for worker in stand.workers)


FAULTS: Mapping[str, Callable[[Stand, random.Random], Losses]] = {
    "SIGKILL of a worker mid-batch": worker_killed,
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
def _read_only(stand: Stand) -> Iterator[None]:
    """By a mount where this user may, else by its permissions, which bind all users but that one."""
    if os.geteuid() != 0:
        stand.artifacts.chmod(0o555)
        try:
            yield
        finally:
            stand.artifacts.chmod(0o755)
        return
    with small_disk(stand.artifacts, "ro") as is_mounted:
        if is_mounted:
            yield
            return
    aside = stand.artifacts.with_name("aside")
    stand.artifacts.rename(aside)  # mounts are not allowed here: no folder at all
    stand.artifacts.touch()
    try:
        yield
    finally:
        stand.artifacts.unlink()
        aside.rename(stand.artifacts)
