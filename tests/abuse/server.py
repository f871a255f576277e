"""A real server process, its memory, and the latency of another client during an attack."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from cli.processes.embedded_redis import EmbeddedRedis
from jobs.cards import ModelCard, announce
from jobs.connection import connect
from tests.waiting import wait_for

_PROBE_SECONDS = 0.1


@dataclass(frozen=True)
class Server:
    url: str
    redis_url: str
    pid: int

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def resident_bytes(self, field: str = "VmRSS") -> int:
        """The memory in use; `VmHWM` is the peak since `reset_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)[0]) * 1024

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def running(folder: Path, card: ModelCard) -> Iterator[Server]:
    """A server on a free port of this machine, with a Redis of its own."""
    database = EmbeddedRedis(folder / "redis")
    redis_url = database.start()
    with connect(redis_url) as redis:
        announce(redis, card, "w1", ttl_seconds=600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"FRAMEDIT_REDIS_URL": redis_url, "FRAMEDIT_DATA_DIR": str(folder), "FRAMEDIT_PORT": str(port)}
    command = [sys.executable, "-m", "cli.main", "server"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    server = Server(f"http://127.0.0.1:{port}", redis_url, process.pid)
    try:
        wait_for(lambda: _answers(server), "the server")
        yield server
    finally:
        process.terminate()
        process.wait(30)
        database.stop()


def _answers(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/livez").status_code == 200
    except httpx.TransportError:
        return False


class Prober:
    """A client that sends requests all the time, and its longest wait by path; infinite for a failed request."""

    def __init__(self, server: Server) -> None:
        self.longest = {"/livez": 0.0, "/v1/videos": 0.0}
        self._server = server
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Prober":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_PROBE_SECONDS):
            for path, longest in self.longest.items():
                self.longest[path] = max(longest, self._ask(path))

    def _ask(self, path: str) -> float:
        started = time.monotonic()
        try:
            is_answered = httpx.get(self._server.url + path, timeout=60).status_code == 200
        except httpx.TransportError:
            is_answered = False
        return time.monotonic() - started if is_answered else float("inf")
