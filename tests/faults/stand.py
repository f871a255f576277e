"""A server, its database and its workers as real processes, for fault injection."""

import hashlib
import os
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote

import httpx
import imageio_ffmpeg
from redis import Redis

import cli.main
from cli.processes.embedded_redis import EmbeddedRedis
from jobs import redis_keys
from jobs.connection import connect
from jobs.videos.store import VideoStore
from tests.faults import worker
from tests.faults.child import Child, start
from tests.faults.proxy import Proxy
from tests.full_disk import small_disk
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for

PATIENCE_SECONDS = 180.0
_FOLDERS = ("flags", "artifacts", "scratch", "redis")
_SIZE = "size=64m"
_REDIS_SIZE = "size=1g,mode=700"

# The requests of all scenarios: few different ones, so that each file can be compared with that of an undisturbed run.
KINDS: Sequence[dict[str, Any]] = tuple(
    {"seed": seed, "num_inference_steps": steps, "guidance_scale": scale}
    for seed, steps, scale in ((1, 30, 2.0), (2, 60, 1.0), (3, 90, 2.0), (4, 45, 1.0))
)


class Stand:
    def __init__(
        self,
        folder: Path,
        lease_seconds: int | None = None,
        max_attempts: int = 3,
        has_disks: bool = False,
        settings: Mapping[str, str] | None = None,
        is_forked: bool = False,
    ) -> None:
        """Start all processes.

        Args:
            has_disks: The scratch and artifact folders are small file systems, which can be filled.
            settings: Further environment variables of all processes.
            is_forked: The processes start without the seconds that Python takes to import PyTorch.
        """
        self.folder = folder
        self.flags, self.artifacts, self.scratch = (folder / name for name in ("flags", "artifacts", "scratch"))
        self.has_disks, self.max_attempts = has_disks, max_attempts
        make_tiny_checkpoint(folder / "checkpoints" / "tiny")
        self.database = EmbeddedRedis(folder / "redis")
        url = self.database.start()
        self.proxy = Proxy(unquote(url.removeprefix("unix://")))
        self.redis: Redis = connect(url)
        self.store = VideoStore(self.redis)
        self.reference: dict[int, str] = {}
        self.lease_seconds = lease_seconds
        self.others: list[Child] = []
        self.env = self._environment(url, max_attempts) | dict(settings or {})
        options = [str(self.flags), *([] if lease_seconds is None else [str(lease_seconds)])]
        # The first worker's connection to Redis can be cut.
        urls = (self.proxy.url, url)
        self.workers = [
            start(worker.main, options, self.env | {"REDIS_URL": own}, folder / f"worker-{i}.log", is_forked)
            for i, own in enumerate(urls)
        ]
        port = _free_port()
        self.api = start(cli.main.main, ["server", "--port", str(port)], self.env, folder / "api.log", is_forked)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _environment(self, url: str, max_attempts: int) -> dict[str, str]:
        ffmpeg = self.folder / "ffmpeg"
        flag = self.flags / "kill-ffmpeg"
        ffmpeg.write_text(f'#!/bin/sh\nif rm "{flag}" 2>/dev/null; then kill -9 $$; fi\nexec "{_ffmpeg()}" "$@"\n')
        ffmpeg.chmod(0o755)
        clean = {k: v for k, v in os.environ.items() if not k.startswith("FRAMEDIT_") and k != "REDIS_URL"}
        return clean | {
            "REDIS_URL": url,
            "OMP_NUM_THREADS": "1",
            "IMAGEIO_FFMPEG_EXE": str(ffmpeg),
            "TMPDIR": str(self.scratch),
            "FRAMEDIT_DATA_DIR": str(self.folder),
            "FRAMEDIT_ARTIFACTS": str(self.artifacts),
            "FRAMEDIT_CHECKPOINTS": str(self.folder / "checkpoints"),
            "FRAMEDIT_MAX_ATTEMPTS": str(max_attempts),
            "FRAMEDIT_DETERMINISTIC": "true",  # so that every run of a request gives the same file
            "FRAMEDIT_RESUME_SECONDS": "0.1",
            "FRAMEDIT_REDIS_TIMEOUT_SECONDS": "1",
        }

    def _keep(self) -> None:
        while not self._closing.wait(0.05):
            for child in (*self.workers, self.api, *self.others):
                child.restart_if_dead()

    def close(self) -> None:
        self._closing.set()
        self._keeper.join()
        self.http.close()
        for child in (*self.workers, self.api, *self.others):
            child.stop()
        self.redis.close()
        self.proxy.close()
        self.database.stop()

    def ready(self) -> None:
        """Wait for all processes, and make every kind of video once without a fault."""
        ids = self.post(len(KINDS))
        self.wait_until_ended(ids)
        self.reference = {int(self.get(i)["seed"]): self.digest(i) for i in ids}
        assert len(set(self.reference.values())) == len(KINDS)

    # Requests of clients

    def post(self, count: int, **changes: Any) -> list[str]:
        """Post videos until they are accepted, and return their ids."""
        return [self._post_one(dict(KINDS[i % len(KINDS)]) | changes) for i in range(count)]

    def _post_one(self, fields: dict[str, Any]) -> str:
        body = {"model": "tiny", "class_label": "right"} | fields

        def accepted() -> str | None:
            try:
                answer = self.http.post("/v1/videos", json=body)
            except httpx.TransportError:
                return None
            # 404: no worker has announced the model yet.
            assert answer.status_code in (200, 404, 503), answer.text
            return str(answer.json()["id"]) if answer.status_code == 200 else None

        return wait_for(accepted, "a video to be accepted", PATIENCE_SECONDS) or ""

    def get(self, video_id: str) -> dict[str, Any]:
        def answered() -> dict[str, Any] | None:
            try:
                answer = self.http.get(f"/v1/videos/{video_id}")
            except httpx.TransportError:
                return None
            return dict(answer.json()) if answer.status_code == 200 else None

        return wait_for(answered, f"{video_id}; the API", PATIENCE_SECONDS) or {}

    def digest(self, video_id: str) -> str:
        answer = self.http.get(f"/v1/videos/{video_id}/content")
        assert answer.status_code == 200, answer.text
        return hashlib.sha256(answer.content).hexdigest()

    # Checks

    def wait_until_running(self, ids: Sequence[str]) -> None:
        wait_for(
            lambda: any(self.get(i)["status"] == "in_progress" for i in ids), "a video in progress", PATIENCE_SECONDS
        )

    def wait_until_ended(self, ids: Sequence[str], timeout_seconds: float = PATIENCE_SECONDS) -> None:
        open_ids = set(ids)

        def ended() -> bool:
            open_ids.difference_update([i for i in open_ids if self.get(i)["status"] in ("completed", "failed")])
            return not open_ids

        wait_for(ended, f"the end of all videos; {self.folder}", timeout_seconds)

    def losses(self, ids: Sequence[str], compares_files: bool = True) -> list[str]:
        """Return what is wrong with videos that must be completed once, with the file of an undisturbed run."""
        self.wait_until_ended(ids)
        return [fault for video_id in ids if (fault := self._fault(video_id, compares_files)) is not None]

    def _fault(self, video_id: str, compares_file: bool) -> str | None:
        video = self.get(video_id)
        if video["status"] != "completed":
            return f"{video_id}: {video['error']}"
        endings = [
            entry for _, entry in self.redis.xrange(redis_keys.events(video_id)) if entry[b"name"] == b"completed"
        ]
        if len(endings) != 1:
            return f"{video_id}: completed {len(endings)} times"
        is_same = self.digest(video_id) == self.reference[video["seed"]] or not compares_file
        return None if is_same else f"{video_id}: another file"

    def logged(self, words: str) -> list[str]:
        """Return the lines with these words in the logs of the workers."""
        lines = [line for worker in self.workers for line in worker.log.read_text(errors="replace").splitlines()]
        return [line for line in lines if words in line]

    def worker_of(self, video_id: str) -> Child:
        """Return the worker that started a video last, by the logs."""
        words = f"{video_id}: started on"
        return max(self.workers, key=lambda worker: worker.log.read_text(errors="replace").rfind(words))

    def worker_names(self) -> list[str]:
        """Return the names of the workers that have announced the model."""
        found = cast(list[bytes], self.redis.zrange(redis_keys.workers("tiny"), 0, -1))
        return [raw.decode() for raw in found]

    def busy_worker(self, chance: random.Random) -> Child:
        return chance.choice(self.workers)


@contextmanager
def standing(
    folder: Path,
    lease_seconds: int | None = None,
    max_attempts: int = 3,
    settings: Mapping[str, str] | None = None,
    is_forked: bool = False,
) -> Iterator[Stand]:
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True)
    with (
        small_disk(folder / "artifacts", _SIZE) as first,
        small_disk(folder / "scratch", _SIZE) as second,
        small_disk(folder / "redis", _REDIS_SIZE) as third,
    ):
        has_disks = first and second and third
        stand = Stand(folder, lease_seconds, max_attempts, has_disks, settings, is_forked)
        try:
            stand.ready()
            yield stand
        finally:
            stand.close()


def _ffmpeg() -> str:
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
