"""The commands that ask a server, against a real one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from cli.client.api_client import Client
from cli.client.sse import Event, parse_events
from cli.main import app
from jobs.cards import ModelCard, announce
from jobs.model_commands import read_commands
from jobs.videos.store import VideoStore

ROOT = Path(__file__).parents[2]
Finish = Callable[[str, bytes], None]


@pytest.fixture
def framedit(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("FRAMEDIT_SERVER", str(http.base_url))
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@contextmanager
def a_worker(store: VideoStore, work: Callable[[str], None]) -> Iterator[None]:
    """Does `work` to the first video that is asked for while the block lasts."""

    def wait() -> None:
        deadline = time.monotonic() + 30
        while not (waiting := store.unfinished()) and time.monotonic() < deadline:
            time.sleep(0.01)
        work(waiting[0].id)

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


def test_submit_follows_and_downloads(
    framedit: Callable[..., Result], store: VideoStore, finish: Finish, tmp_path: Path
) -> None:
    output = tmp_path / "out.mp4"
    with a_worker(store, lambda video_id: finish(video_id, b"the file")):
        result = framedit("submit", "a red circle", "--model", "tiny-text", "--seed", 7, "-o", output)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{output}  16 frames at 8 fps, tiny-text, seed 7\n"
    assert "completed" in result.stderr
    assert output.read_bytes() == b"the file"
    assert list(tmp_path.glob(".*.part")) == []


def test_submit_asks_again_and_again_where_there_are_no_events(
    framedit: Callable[..., Result],
    store: VideoStore,
    finish: Finish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def broken(self: Client, video_id: str, last_event_id: str = "") -> Iterator[Event]:
        tried.append(video_id)
        raise httpx.RemoteProtocolError("cut")

    monkeypatch.setattr(Client, "events", broken)
    with a_worker(store, lambda video_id: finish(video_id, b"the file")):
        result = framedit("submit", "--class", 1, "--model", "tiny-class", "-o", tmp_path / "out.mp4", "--json")
    assert tried
    assert result.exit_code == 0, result.output
    video = json.loads(result.stdout)
    assert (video["status"], video["class_name"], video["file"]) == (
        "completed",
        "circle-right",
        str(tmp_path / "out.mp4"),
    )


def test_several_are_numbered(framedit: Callable[..., Result], finish: Finish, tmp_path: Path) -> None:
    ids = framedit("submit", "x", "--model", "tiny-text", "-n", 2, "--detach").stdout.split()
    for number, video_id in enumerate(ids):
        finish(video_id, bytes([number]))
    result = framedit("fetch", *ids, "-o", tmp_path / "v.mp4")
    assert result.exit_code == 0, result.output
    assert [(tmp_path / f"v-{number}.mp4").read_bytes() for number in (1, 2)] == [b"\0", b"\1"]


def test_the_suffix_of_the_output_chooses_the_format(
    framedit: Callable[..., Result], finish: Finish, tmp_path: Path
) -> None:
    options = ("--model", "tiny-text", "--quality", "low", "--detach", "--json")
    [video] = json.loads(framedit("submit", "x", "-o", tmp_path / "out.webm", *options).stdout)
    assert (video["output_format"], video["output_quality"]) == ("webm", "low")
    finish(video["id"], b"a webm")
    result = framedit("fetch", video["id"], "-o", tmp_path / "out.mp4")
    assert result.stdout.startswith(f"{tmp_path / 'out.webm'}  16 frames")
    assert [path.read_bytes() for path in tmp_path.glob("out.*")] == [b"a webm"]


def test_an_image_is_saved_as_png(
    framedit: Callable[..., Result], finish: Finish, redis: Redis, text_card: ModelCard, tmp_path: Path
) -> None:
    announce(redis, text_card.model_copy(update={"id": "images", "min_frames": 1}), "w1", ttl_seconds=600)
    options = ("--model", "images", "--frames", 1, "--clean-caption", "--detach", "--json")
    [video] = json.loads(framedit("submit", "x", *options).stdout)
    assert video["clean_caption"]
    finish(video["id"], b"a picture")
    result = framedit("fetch", video["id"], "-o", tmp_path / "out.mp4")
    assert result.stdout == f"{tmp_path / 'out.png'}  image, images, seed {video['seed']}\n"
    assert [path.read_bytes() for path in tmp_path.glob("out.*")] == [b"a picture"]


def test_a_video_that_fails_is_status_1(framedit: Callable[..., Result], store: VideoStore, tmp_path: Path) -> None:
    with a_worker(store, lambda video_id: store.fail(video_id, "not_finite", "ran away")):
        result = framedit("submit", "x", "--model", "tiny-text", "-o", tmp_path / "out.mp4")
    assert result.exit_code == 1
    assert "failed (not_finite): ran away" in result.stderr
    assert not (tmp_path / "out.mp4").exists()


def test_models_are_loaded_and_pinned(framedit: Callable[..., Result], redis: Redis) -> None:
    assert "tiny-text  load requested, 1 workers" in framedit("models", "load", "tiny-text").stdout
    assert json.loads(framedit("models", "pin", "tiny-text", "--json").stdout)["pinned"] is True
    command = read_commands(redis, ["tiny-text"])["tiny-text"]
    assert (command.number, command.action, command.pinned) == (1, "load", True)
    assert framedit("models", "unload", "tiny-text").exit_code == 2
    assert framedit("models", "unpin", "tiny-text").exit_code == 0
    assert framedit("models", "unload", "tiny-text").exit_code == 0
    assert "no model 'none'" in framedit("models", "load", "none").stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("submit", "x", "--model", "none", "--detach"), 2, "there is no model 'none'; the models here are"),
        (("submit", "x", "--model", "tiny-text", "--steps", 9999, "--detach"), 2, "num_inference_steps is 9999"),
        (("submit", "x", "-o", "nowhere/out.mp4"), 2, "the folder nowhere does not exist"),
        (("cancel", "video_1"), 2, "there is no video 'video_1'"),
        (("list", "--server", "http://127.0.0.1:1"), 1, "the server at http://127.0.0.1:1 does not answer"),
        (("list", "--server", "nowhere"), 2, "server is 'nowhere'"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(
    framedit: Callable[..., Result], arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = framedit(*arguments)
    assert result.exit_code == status
    assert result.stderr.startswith("framedit: ")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_ctrl_c_is_status_130_and_the_video_goes_on(http: httpx.Client, store: VideoStore, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "cli.main", "submit", "x", "--model", "tiny-text", "-o", str(tmp_path / "out.mp4")]
    env = os.environ | {"FRAMEDIT_SERVER": str(http.base_url), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(program, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "queued" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    [video] = store.unfinished()
    assert process.returncode == 130
    assert f"`framedit fetch {video.id}` downloads it" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_list_models_cancel_and_delete(framedit: Callable[..., Result], store: VideoStore) -> None:
    first, second = (framedit("submit", text, "--model", "tiny-text", "--detach").stdout.strip() for text in "ab")
    listed = framedit("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["ID", second, first]
    assert "queued, position 1" in listed[2]
    assert [video["id"] for video in json.loads(framedit("list", "--limit", 1, "--json").stdout)] == [second]
    assert framedit("cancel", first).stdout == f"{first}  cancelled\n"
    assert json.loads(framedit("delete", first, second, "--json").stdout)[1]["deleted"] is True
    assert store.find(second) is None
    assert "tiny-class  1        0       one of 3 classes  16 of 96x64" in framedit("models").stdout
    assert {model["id"] for model in json.loads(framedit("models", "--json").stdout)} == {"tiny-text", "tiny-class"}


def test_events_are_read_as_the_standard_says() -> None:
    lines = [
        ": hello",
        "retry: 10",
        "",
        "event: progress",
        "id: 1-0",
        "data: {",
        "data:}",
        "",
        "data: x",
        "",
        "data: cut",
    ]
    assert list(parse_events(lines)) == [Event("progress", "{\n}", "1-0"), Event("message", "x", "1-0")]
