"""References, edits and extensions over HTTP, with real files and the real artifact store."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from openai import OpenAI
from PIL import Image

from jobs.cards import ModelCard
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.store import VideoStore
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4

Finish = Callable[[str, bytes], None]

PROMPT = {"model": "tiny-text", "prompt": "a red circle"}


@pytest.fixture
def text_card(text_card: ModelCard) -> ModelCard:
    return text_card.model_copy(update={"max_frames": 64, "trained_frames": 16})


def make_png(color: str = "red") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (120, 80), color).save(content, "PNG")
    return content.getvalue()


def make_mp4(path: Path, num_frames: int = 16) -> bytes:
    frames = np.zeros((num_frames, 64, 96, 3), np.uint8)
    frames[..., 0] = np.linspace(40, 240, num_frames, dtype=np.uint8)[:, None, None]
    write_mp4(frames, path, Encoding(8))
    return path.read_bytes()


@pytest.fixture
def source(http: httpx.Client, finish: Finish, tmp_path: Path) -> str:
    """The id of a completed video of 16 frames."""
    video_id: str = http.post("/v1/videos", json=PROMPT | {"seed": 5, "num_inference_steps": 30}).json()["id"]
    finish(video_id, make_mp4(tmp_path / "source.mp4"))
    return video_id


def stored_frames(settings: Settings, video: dict[str, Any]) -> np.ndarray:
    with ArtifactStore(settings.artifacts).open(video["id"], "reference") as file:
        return np.frombuffer(file.read(), np.uint8).reshape(-1, 64, 96, 3)


def test_an_uploaded_image_is_the_first_frame(http: httpx.Client, settings: Settings) -> None:
    answer = http.post("/v1/videos", data=PROMPT, files={"input_reference": ("a.png", make_png(), "image/png")})
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert video["reference"] == {"use": "first", "num_frames": 1, "fit": "crop"}
    assert (video["source_video_id"], video["strength"], video["overlap_frames"]) == (None, None, None)
    (frame,) = stored_frames(settings, video)
    assert abs(frame.astype(int) - [255, 0, 0]).max() < 8


def test_an_image_as_a_data_url_can_be_the_last_frame(http: httpx.Client, settings: Settings) -> None:
    url = "data:image/png;base64," + base64.b64encode(make_png("blue")).decode()
    body = PROMPT | {"input_reference": {"image_url": url}, "reference_frame": "last", "n": 2}
    videos = http.post("/v1/videos", json=body).json()["data"]
    assert [video["reference"]["use"] for video in videos] == ["last", "last"]
    assert all(stored_frames(settings, video)[0, 0, 0, 2] > 240 for video in videos)


def test_a_video_is_edited(http: httpx.Client, store: VideoStore, settings: Settings, source: str) -> None:
    body = {"video": {"id": source}, "prompt": "a blue circle", "strength": 0.5}
    video = http.post("/v1/videos/edits", json=body).json()
    assert video["model"] == "tiny-text"
    assert video["prompt"] == "a blue circle"
    assert (video["num_frames"], video["num_inference_steps"]) == (16, 30)
    assert video["source_video_id"] == source
    assert video["strength"] == 0.5
    assert store.get(video["id"]).steps == 15
    assert store.get(video["id"]).cost == store.get(source).cost / 2
    assert len(stored_frames(settings, video)) == 16


def test_a_video_is_extended(http: httpx.Client, store: VideoStore, settings: Settings, source: str) -> None:
    video = http.post("/v1/videos/extensions", json={"video": {"id": source}, "seconds": "3"}).json()
    assert video["prompt"] == "a red circle"
    assert video["num_frames"] == 16 + 24
    assert video["seconds"] == "5"
    assert video["overlap_frames"] == 8
    assert store.get(video["id"]).request.generated_frames == 8 + 24
    assert len(stored_frames(settings, video)) == 16
    default = http.post("/v1/videos/extensions", json={"video": {"id": source}}).json()
    assert default["num_frames"] == 16 + 8


def test_an_uploaded_video_is_extended(http: httpx.Client, tmp_path: Path) -> None:
    files = {"video": ("a.mp4", make_mp4(tmp_path / "a.mp4", 20), "video/mp4")}
    answer = http.post("/v1/videos/extensions", data=PROMPT | {"num_frames": "4"}, files=files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["num_frames"] == 24


def test_a_remix_starts_from_the_same_frames(http: httpx.Client, settings: Settings, source: str) -> None:
    edit = http.post("/v1/videos/edits", json={"video": {"id": source}, "prompt": "a blue circle"}).json()
    remix = http.post(f"/v1/videos/{edit['id']}/remix", json={"prompt": "a green circle"}).json()
    assert remix["reference"] == edit["reference"]
    assert (stored_frames(settings, remix) == stored_frames(settings, edit)).all()


def test_longer_videos_cost_their_windows(http: httpx.Client, store: VideoStore) -> None:
    short, long = (http.post("/v1/videos", json=PROMPT | {"num_frames": count}).json()["id"] for count in (16, 64))
    assert store.get(long).cost == 7 * store.get(short).cost  # windows of 16 frames, 8 apart


def test_deleting_a_video_deletes_its_reference(http: httpx.Client, settings: Settings, source: str) -> None:
    edit = http.post("/v1/videos/edits", json={"video": {"id": source}, "prompt": "a blue circle"}).json()
    assert http.delete(f"/v1/videos/{edit['id']}").status_code == 200
    assert not (Path(settings.artifacts) / edit["id"]).exists()


def test_the_same_file_with_the_same_key_makes_one_video(http: httpx.Client) -> None:
    def send(content: bytes) -> httpx.Response:
        files = {"input_reference": ("a.png", content, "image/png")}
        return http.post("/v1/videos", data=PROMPT, files=files, headers={"Idempotency-Key": "once"})

    first = send(make_png())
    assert send(make_png()).json()["id"] == first.json()["id"]
    assert send(make_png("blue")).status_code == 409


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("", {"input_reference": {"image_url": "https://example.com/a.png"}}, 400, "not a data URL"),
        ("", {"input_reference": {"image_url": "data:image/png;base64,%%%"}}, 400, "not valid base64"),
        ("", {"input_reference": {}}, 400, "send a file, an id or an image_url"),
        ("", {"input_reference": {"id": "video_" + "0" * 32}}, 404, "video_0"),
        ("", {"input_reference": {"path": "/etc/passwd"}}, 400, "path"),
        ("", {"num_frames": 65}, 400, "2 to 64 frames"),
        ("/edits", {"prompt": "x"}, 400, "video is missing"),
        ("/edits", {"strength": 0, "video": {"id": "SOURCE"}}, 400, "strength"),
        ("/extensions", {"video": {"id": "SOURCE"}, "num_frames": 57}, 400, "at most 56 frames"),
        ("/extensions", {"video": {"id": "SOURCE"}, "overlap_frames": 16}, 400, "allows 1 to 15"),
    ],
)
def test_bad_sources_are_refused(
    http: httpx.Client, source: str, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    if body.get("video") == {"id": "SOURCE"}:
        body = body | {"video": {"id": source}}
    answer = http.post(f"/v1/videos{path}", json=PROMPT | body)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_a_hostile_file_is_refused_and_leaves_nothing(http: httpx.Client, settings: Settings) -> None:
    before = set(Path(settings.artifacts).glob("video_*"))
    answer = http.post("/v1/videos", data=PROMPT, files={"input_reference": ("a.mp4", b"#EXTM3U\nfile:///etc/passwd")})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input_reference"
    assert set(Path(settings.artifacts).glob("video_*")) == before


def test_a_video_in_progress_cannot_be_a_source(http: httpx.Client) -> None:
    video_id = http.post("/v1/videos", json=PROMPT).json()["id"]
    answer = http.post("/v1/videos/edits", json={"video": {"id": video_id}, "prompt": "x"})
    assert answer.status_code == 409
    assert "wait until it is completed" in answer.json()["error"]["message"]


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_official_client_sends_references(server_url: str, http: httpx.Client, source: str, tmp_path: Path) -> None:
    client = OpenAI(base_url=f"{server_url}/v1", api_key="unused", max_retries=0)
    picture = tmp_path / "a.png"
    picture.write_bytes(make_png())
    video = client.videos.create(prompt="a red circle", model="tiny-text", input_reference=picture)  # type: ignore[arg-type]
    assert video.status == "queued"
    clip = tmp_path / "b.mp4"
    clip.write_bytes(make_mp4(tmp_path / "c.mp4"))
    model = {"model": "tiny-text"}
    assert client.videos.edit(prompt="a blue circle", video=clip, extra_body=model).status == "queued"
    assert client.videos.extend(prompt="a red circle", seconds="4", video=clip, extra_body=model).seconds == "6"
