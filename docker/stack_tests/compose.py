"""The stack of docker-compose.yml as a project of its own, driven by `docker compose`."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import waiting

REPOSITORY = Path(__file__).parents[2]
# Few steps: what is drawn does not matter here.
VIDEO = {"model": "demo-class", "class_label": "star-left", "seed": 7, "num_inference_steps": 4}


def run(*command: str, env: dict[str, str] | None = None, check: bool = True, errors: bool = False) -> str:
    """What a command prints, with `errors` on stderr too; when it fails, its errors are in the exception."""
    done = subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout + done.stderr if errors else done.stdout


def wait_for(condition: Callable[[], Any], what: str, timeout_seconds: float = 300.0) -> Any:
    """The first true value of `condition`, for which containers may take their time."""
    return waiting.wait_for(condition, what, timeout_seconds, poll_seconds=0.2)


@dataclass(frozen=True)
class Stack:
    """One project of Compose, its API on `port` of this machine. `folder` is where its file .env is."""

    project: str
    port: int
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None

    def compose(self, *arguments: str, check: bool = True) -> str:
        env = {"API_PORT": str(self.port), **self.env}
        place = ["--project-directory", str(self.folder)] if self.folder else []
        return run("docker", "compose", *place, "-p", self.project, *arguments, env=env, check=check)

    def up(self, model: str = "demo-class", workers: int = 1) -> None:
        """Start the stack from existing images, and wait until this many workers serve the model."""
        self.compose("up", "-d", "--no-build")
        self.wait_for_workers(model, workers)

    def wait_for_workers(self, model: str, workers: int) -> None:
        wait_for(lambda: self.workers_alive(model) >= workers, f"{workers} workers for {model}", 600)

    def workers_alive(self, model: str) -> int:
        """Return the count that the API reports, -1 while it does not answer."""
        try:
            with self.client() as http:
                answer = http.get(f"/v1/models/{model}")
        except httpx.TransportError:
            return -1
        return int(answer.json()["workers_alive"]) if answer.status_code == 200 else -1

    def ask_inside(self, url: str) -> str:
        """Return the response of a server in the networks of the stack, requested from the container of the API."""
        code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
        return self.compose("exec", "-T", "api", "/opt/framedit/bin/python", "-c", code, url)

    def down(self) -> None:
        """Leave nothing behind: containers, networks, volumes."""
        self.compose("--profile", "*", "down", "-v", "--remove-orphans", "-t", "5")

    def names(self, service: str) -> list[str]:
        """The names of a service's containers."""
        return [container["Name"].lstrip("/") for container in self.containers(service)]

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """What Docker knows of the containers, of one service or of all."""
        names = self.compose("ps", "-a", "-q", *([service] if service else [])).split()
        found: list[dict[str, Any]] = json.loads(run("docker", "inspect", *names)) if names else []
        return found

    def is_healthy(self, service: str) -> bool:
        found = self.containers(service)
        return bool(found) and all(c["State"].get("Health", {}).get("Status") == "healthy" for c in found)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=20)

    def post(self, **fields: Any) -> str:
        """The id of a video that has been accepted."""
        with self.client() as http:
            answer = http.post("/v1/videos", json=VIDEO | fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def get(self, video_id: str) -> dict[str, Any]:
        """The video as it is; {} while the API does not answer."""
        try:
            with self.client() as http:
                answer = http.get(f"/v1/videos/{video_id}")
        except httpx.TransportError:
            return {}
        assert answer.status_code in (200, 503), answer.text
        return dict(answer.json()) if answer.status_code == 200 else {}

    def completed_ever(self) -> int:
        """How many videos have been completed, as counted in the very step that does it."""
        with self.client() as http:
            lines = http.get("/metrics").text.splitlines()
        counts = [line for line in lines if line.startswith("framedit_videos_total{") and 'status="completed"' in line]
        return sum(int(float(line.rpartition(" ")[2])) for line in counts)

    def wait_until_ended(self, video_id: str, timeout_seconds: float = 600.0) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            video = self.get(video_id)
            return video if video.get("status") in ("completed", "failed") else None

        return dict(wait_for(ended, f"the end of {video_id}: {self.get(video_id)}", timeout_seconds))
