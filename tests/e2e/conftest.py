"""Start `framedit serve` as real processes with their own data folder, and a client of the API."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.forked import Forked, supervise
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 60.0


def descendants(pid: int) -> set[int]:
    """The child processes of `pid` and their descendants, from Linux's /proc."""
    children = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        children |= {int(child) for child in task.read_text().split()}
    return children.union(*map(descendants, children))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


@dataclass
class Serve:
    """A running `framedit serve`."""

    process: subprocess.Popen[bytes] | Forked
    log: Path
    url: str
    http: httpx.Client

    def post(self, **fields: Any) -> dict[str, Any]:
        body = {"model": "tiny", "class_label": "right", "seed": 7} if "model" not in fields else {"seed": 7}
        answer = self.http.post("/v1/videos", json=body | fields)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def get(self, video_id: str) -> dict[str, Any]:
        """Retrieve a video. Retries while the database restarts."""

        def answered() -> httpx.Response | None:
            answer = self.http.get(f"/v1/videos/{video_id}")
            return None if answer.status_code == 503 else answer

        answer = wait_for(answered, f"{video_id}; {self.log.read_text()}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def wait_until(self, video_id: str, *states: str, timeout_seconds: float = 90.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            video = self.get(video_id)
            return video if video["status"] in states else None

        return dict(wait_for(reached, f"{video_id} {states}; {self.log.read_text()}", timeout_seconds))

    def wait_for_step(self, video_id: str) -> dict[str, Any]:
        """Wait until the worker has completed a step of the video."""

        def begun() -> dict[str, Any] | None:
            video = self.get(video_id)
            return video if video["status"] == "in_progress" and video["progress"] > 0 else None

        return dict(wait_for(begun, f"{video_id} in progress; {self.log.read_text()}"))

    def pid_of(self, part: str) -> int:
        """The process whose command line contains `part`."""
        found = [pid for pid in descendants(self.process.pid) if part in command_line(pid)]
        assert len(found) == 1, (part, found)
        return found[0]

    def processes(self) -> set[int]:
        return {self.process.pid} | descendants(self.process.pid)

    def kill_all(self) -> None:
        """Kill all processes at once, as a power cut does."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-P", "-m", "cli.main", *map(str, arguments)]


def environment(data_dir: Path) -> dict[str, str]:
    """This process's environment without server settings, with a data folder and one thread per worker."""
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("FRAMEDIT_") and name != "REDIS_URL"
    }
    return env | {"FRAMEDIT_DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def serving(
    data_dir: Path, checkpoints: Path, api_key: str = "", folder: Path = REPOSITORY, forked: bool = True, **env: str
) -> Iterator[Serve]:
    """Run `framedit serve` in `folder` on a free port until the block ends. Its client sends `api_key`.

    Unless `forked`, all processes are started by their commands, which is slower.
    """
    log = data_dir.parent / f"{data_dir.name}.log"
    arguments = ("serve", "--port", "0", "--data-dir", data_dir, "--checkpoints", checkpoints)
    env = environment(data_dir) | env
    process: subprocess.Popen[bytes] | Forked
    with log.open("ab") as output:
        start = output.tell()
        if forked:
            process = Forked(supervise, arguments, env, log, folder=folder)
        else:
            process = subprocess.Popen(command(*arguments), cwd=folder, env=env, stdout=output, stderr=output)

    def address() -> re.Match[str] | None:
        text = log.read_text()[start:]
        assert process.poll() is None, text
        return re.search(r"FrameDiT server on (http://\S+)", text)

    try:
        url = wait_for(address, f"the server; {log.read_text()}", START_SECONDS)[1]
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        with httpx.Client(base_url=url, headers=headers, timeout=10) as http:
            yield Serve(process, log, url, http)
        if process.poll() is None:
            process.terminate()
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(root / "tiny")
    return root


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Serve]:
    """One server, shared by tests that leave no trace in it."""
    with serving(tmp_path_factory.mktemp("served") / "data", checkpoints) as running:
        yield running


def example_of(log: str) -> dict[str, Any]:
    """The body in the curl command that the server prints."""
    match = re.search(r"-d '(.*)'", log)
    assert match is not None, log
    return dict(json.loads(match[1]))
