"""Faults under load: every video that was accepted is completed, and once.

The model is tiny, with random weights, so that what is tested is what happens to the jobs.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.tiny_checkpoint import make_tiny_checkpoint

from .compose import Stack, run, wait_for

TINY = {"model": "tiny", "class_label": "left", "num_inference_steps": 600}
IN_FLIGHT = 8
ARTIFACT_MEGABYTES = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """With two workers, and a volume of artifacts that is small enough to be filled."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    make_tiny_checkpoint(checkpoints / "tiny")
    for folder in (checkpoints.parent, checkpoints, *checkpoints.rglob("*")):
        folder.chmod(0o755)
    port = int(os.environ.get("TEST_PORT", "18000")) + 1
    override = Path(__file__).with_name("chaos.yml")
    stack = Stack(
        "framedit-chaos",
        port,
        {
            "CHECKPOINTS": str(checkpoints),
            "CPU_WORKERS": "2",
            "COMPOSE_FILE": f"docker-compose.yml:{override}",
            "ARTIFACTS_SIZE": f"{ARTIFACT_MEGABYTES}m",
        },
    )
    try:
        stack.up("tiny", workers=2)
        yield stack
    finally:
        stack.down()


def busiest_worker(stack: Stack) -> str:
    """The one that began most of the videos of the last minute."""
    logs = {name: run("docker", "logs", "--since", "60s", name, errors=True) for name in stack.names("worker")}
    return max(logs, key=lambda name: logs[name].count(": started on"))


def kill(service: str) -> Callable[[Stack], None]:
    """All of its containers, as the kernel would when memory is short (which takes root): Docker starts them again."""

    def fault(stack: Stack) -> None:
        for name in stack.names(service):
            pid = run("docker", "inspect", "-f", "{{.State.Pid}}", name).strip()
            run("kill", "-9", pid)

    return fault


def freeze(service: str, seconds: float) -> Callable[[Stack], None]:
    def fault(stack: Stack) -> None:
        name = busiest_worker(stack) if service == "worker" else stack.names(service)[0]
        run("docker", "pause", name)
        time.sleep(seconds)
        run("docker", "unpause", name)

    return fault


def cut_off(seconds: float) -> Callable[[Stack], None]:
    """A worker that reaches nothing for longer than its lease lasts."""

    def fault(stack: Stack) -> None:
        name = busiest_worker(stack)
        networks = [f"{stack.project}_inside", f"{stack.project}_outside"]
        for network in networks:
            run("docker", "network", "disconnect", network, name)
        time.sleep(seconds)
        for network in networks:
            run("docker", "network", "connect", network, name)

    return fault


FILL = """
with open("/data/artifacts/filler", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)) == 4096: pass
    except OSError: pass
"""


def fill_the_disk(stack: Stack) -> None:
    """The volume is full until there is something to be stored, and for a while then."""
    [name, *_] = stack.names("worker")
    python = "/opt/framedit/bin/python"
    run("docker", "exec", name, python, "-c", FILL)
    wait_for(lambda: "trying again" in stack.compose("logs", "worker"), "a worker that finds the disk full")
    run("docker", "exec", name, python, "-c", "import os; os.remove('/data/artifacts/filler')")


def restart_all_in_turn(stack: Stack) -> list[str]:
    """As for a new version, while requests keep coming."""
    video_ids = []
    for name in (*stack.names("worker"), *stack.names("api"), *stack.names("redis")):
        run("docker", "restart", "-t", "60", name)
        video_ids.append(wait_for(lambda: post_if_possible(stack), "a video that is accepted"))
    return video_ids


def post_if_possible(stack: Stack) -> str | None:
    """The id of a video, None while none is accepted."""
    with suppress(httpx.TransportError, AssertionError):
        return stack.post(**TINY)
    return None


# What they return are the ids of videos that were accepted meanwhile.
FAULTS: dict[str, Callable[[Stack], list[str] | None]] = {
    "kill -9 of both workers": kill("worker"),
    "kill -9 of the API": kill("api"),
    "kill -9 of Redis": kill("redis"),
    "Redis frozen for 15 s": freeze("redis", 15),
    "a worker frozen for 40 s": freeze("worker", 40),
    "a worker cut off for 60 s": cut_off(60),
    "the disk of the artifacts full": fill_the_disk,
    "all restarted in turn": restart_all_in_turn,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_accepted_video_is_completed_once(stack: Stack, fault: str) -> None:
    started_at = time.monotonic()
    completed_before = stack.completed_ever()
    video_ids = [stack.post(**TINY, seed=seed) for seed in range(IN_FLIGHT)]
    wait_for(lambda: any(stack.get(video_id).get("status") != "queued" for video_id in video_ids), "a start")
    video_ids += FAULTS[fault](stack) or []
    ended = [stack.wait_until_ended(video_id) for video_id in video_ids]
    assert [video["status"] for video in ended] == ["completed"] * len(video_ids), ended
    assert stack.completed_ever() - completed_before == len(video_ids)
    with stack.client() as http:
        for video_id in video_ids:
            content = http.get(f"/v1/videos/{video_id}/content")
            assert content.headers["etag"] == f'"{hashlib.sha256(content.content).hexdigest()}"'
    stack.wait_for_workers("tiny", 2)
    log = stack.compose("logs", "--no-color", "worker")
    starts = sum(1 for line in log.splitlines() for video_id in video_ids if f"{video_id}: started" in line)
    again = starts - len(video_ids)
    print(f"\n| {fault} | {len(ended)} of {len(video_ids)} | {again} | {time.monotonic() - started_at:.0f} s |")
