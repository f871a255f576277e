"""`framedit submit` with an image or a video, against a real server."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from cli.main import app
from tests.server.references.test_requests import PROMPT, make_mp4

Finish = Callable[[str, bytes], None]


@pytest.fixture
def submit(http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("FRAMEDIT_SERVER", str(http.base_url))
    options = ("--model", "tiny-text", "--detach")
    return lambda *words: CliRunner().invoke(app, ["submit", "a red circle", *options, *map(str, words)])


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (50, 50), "red").save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_an_image_is_sent(submit: Callable[..., Result], http: httpx.Client, picture: Path) -> None:
    result = submit("--image", picture, "--steps", 7)
    assert result.exit_code == 0, result.output
    video = http.get(f"/v1/videos/{result.output.strip()}").json()
    assert (video["reference"]["use"], video["num_inference_steps"]) == ("first", 7)


def test_a_file_is_edited_and_an_id_extended(
    submit: Callable[..., Result], http: httpx.Client, finish: Finish, tmp_path: Path
) -> None:
    content = make_mp4(tmp_path / "a.mp4")
    edited = submit("--edit", tmp_path / "a.mp4", "--strength", 0.4).output.strip()
    assert http.get(f"/v1/videos/{edited}").json()["strength"] == 0.4
    video_id = http.post("/v1/videos", json=PROMPT).json()["id"]
    finish(video_id, content)
    extended = submit("--extend", video_id, "--frames", 4).output.strip()
    video = http.get(f"/v1/videos/{extended}").json()
    assert (video["source_video_id"], video["num_frames"]) == (video_id, 20)


def test_wrong_options_are_refused(submit: Callable[..., Result], picture: Path) -> None:
    both = submit("--image", picture, "--edit", picture)
    assert both.exit_code == 2
    assert "--image and --edit exclude each other" in both.output
    missing = submit("--extend", "nothing.mp4")
    assert missing.exit_code == 2
    assert "neither a file nor the id" in missing.output
