"""The fields `output_format` and `output_quality` over HTTP, with files of the real encoders."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from jobs.cards import ModelCard
from jobs.settings import Settings
from jobs.storage.artifact_store import ArtifactStore
from jobs.videos.record import OutputFormat
from jobs.videos.store import VideoStore
from worker.output.formats.encoding import Encoding
from worker.output.formats.writers import WRITERS

Create = Callable[..., str]

PROMPT = {"model": "tiny-text", "prompt": "A red circle!"}
MEDIA_TYPES: dict[OutputFormat, str] = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
    "webp": "image/webp",
    "png": "application/zip",
}


@pytest.fixture
def text_card(text_card: ModelCard) -> ModelCard:
    return text_card.model_copy(update={"min_frames": 1, "max_frames": 64, "trained_frames": 16})


def brightening() -> NDArray[np.uint8]:
    """(16, 64, 96, 3): grey frames, each brighter than the one before. The first two are equal."""
    levels = np.linspace(40, 235, 16).astype(np.uint8)
    levels[1] = levels[0]
    return np.broadcast_to(levels[:, None, None, None], (16, 64, 96, 3)).copy()


@pytest.fixture
def complete(http: httpx.Client, store: VideoStore, finish: Callable[[str, bytes], None], tmp_path: Path) -> Create:
    """Creates a video with the given fields, completes it with a real file, and returns its id."""

    def complete(**fields: Any) -> str:
        answer = http.post("/v1/videos", json=PROMPT | fields)
        assert answer.status_code == 200, answer.text
        video_id: str = answer.json()["id"]
        request = store.get(video_id).request
        encoding = Encoding(request.fps, request.frame_rate_multiplier, request.output_quality)
        WRITERS[request.result_kind](brightening()[: request.num_frames], tmp_path / "made", encoding)
        finish(video_id, (tmp_path / "made").read_bytes())
        return video_id

    return complete


@pytest.mark.parametrize("output_format", list(MEDIA_TYPES))
def test_a_file_has_the_type_and_the_name_of_its_format(
    http: httpx.Client, complete: Create, output_format: OutputFormat
) -> None:
    video_id = complete(output_format=output_format)
    url = f"/v1/videos/{video_id}/content"
    whole = http.get(url)
    assert whole.status_code == 200
    assert whole.headers["content-type"] == MEDIA_TYPES[output_format]
    suffix = "zip" if output_format == "png" else output_format
    assert whole.headers["content-disposition"] == f'inline; filename="a-red-circle-{video_id[-6:]}.{suffix}"'
    part = http.get(url, headers={"range": "bytes=10-99"})
    assert (part.status_code, part.content) == (206, whole.content[10:100])
    assert part.headers["content-type"] == MEDIA_TYPES[output_format]
    assert http.head(url).headers["content-length"] == str(len(whole.content))
    for variant, media_type in (("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")):
        picture = http.get(url, params={"variant": variant})
        assert (picture.status_code, picture.headers["content-type"]) == (200, media_type)
        assert picture.content.startswith(f"the {variant}".encode())
    assert http.get(f"/v1/videos/{video_id}").json()["output_format"] == output_format
    assert http.get("/v1/videos").json()["data"][0]["output_format"] == output_format


def test_the_defaults_are_an_mp4_of_high_quality_and_lossless_pngs(http: httpx.Client) -> None:
    def output(**fields: Any) -> tuple[str, str]:
        video = http.post("/v1/videos", json=PROMPT | fields).json()
        return video["output_format"], video["output_quality"]

    assert output() == ("mp4", "high")
    assert output(output_format="webm", output_quality="low") == ("webm", "low")
    assert output(output_format="png") == ("png", "maximum")
    assert output(num_frames=1) == ("png", "maximum")
    assert output(num_frames=1, output_format="png", output_quality="maximum") == ("png", "maximum")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"output_format": "avi"}, "output_format", "it should be 'mp4', 'webm', 'gif', 'webp' or 'png'"),
        ({"output_quality": "best"}, "output_quality", "it should be 'low', 'medium', 'high' or 'maximum'"),
        ({"output_format": "png", "output_quality": "low"}, "output_quality", "png is lossless, which allows maximum"),
        ({"output_format": "gif", "num_frames": 1}, "output_format", "one frame is an image, which allows png"),
        ({"output_format": "gif", "fps": 60}, "output_format", "at most 50 frames per second"),
        (
            {"output_format": "webp", "fps": 24, "frame_rate_multiplier": 4},
            "output_format",
            "fps times frame_rate_multiplier is 96",
        ),
    ],
)
def test_values_that_a_format_does_not_allow_are_refused(
    http: httpx.Client, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = http.post("/v1/videos", json=PROMPT | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def test_the_frames_are_a_zip_of_lossless_pngs(http: httpx.Client, complete: Create) -> None:
    video_id = complete(output_format="png")
    answer = http.get(f"/v1/videos/{video_id}/content", params={"variant": "frames"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == [f"frame-{number:05d}.png" for number in range(1, 17)]
        assert archive.testzip() is None


@pytest.mark.parametrize("fields", [{"output_format": "webm"}, {"num_frames": 1}])
def test_the_frames_of_another_format_are_refused(http: httpx.Client, complete: Create, fields: dict[str, Any]) -> None:
    answer = http.get(f"/v1/videos/{complete(**fields)}/content", params={"variant": "frames"})
    assert answer.status_code == 404
    assert "output_format 'png'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("multiplier", [1, 4])
@pytest.mark.parametrize("output_format", list(MEDIA_TYPES))
def test_a_video_of_each_format_can_be_edited_and_extended(
    http: httpx.Client, settings: Settings, complete: Create, output_format: OutputFormat, multiplier: int
) -> None:
    source = complete(output_format=output_format, frame_rate_multiplier=multiplier)
    edit = http.post("/v1/videos/edits", json={"video": {"id": source}, "prompt": "a blue circle"})
    assert edit.status_code == 200, edit.text
    assert (edit.json()["num_frames"], edit.json()["output_format"]) == (16, output_format)
    with ArtifactStore(settings.artifacts).open(edit.json()["id"], "reference") as file:
        frames = np.frombuffer(file.read(), np.uint8).reshape(-1, 64, 96, 3)
    assert np.abs(frames.mean((1, 2, 3)) - brightening().mean((1, 2, 3))).max() < 6
    extension = http.post("/v1/videos/extensions", json={"video": {"id": source}, "output_format": "mp4"})
    assert extension.status_code == 200, extension.text
    assert (extension.json()["num_frames"], extension.json()["output_format"]) == (24, "mp4")
    assert extension.json()["output_quality"] == "high"
    body = PROMPT | {"input_reference": {"id": source}}
    assert http.post("/v1/videos", json=body).json()["reference"]["num_frames"] == 8


def test_the_edit_of_an_image_is_an_mp4(http: httpx.Client, complete: Create) -> None:
    edit = http.post("/v1/videos/edits", json={"video": {"id": complete(num_frames=1)}, "prompt": "a blue circle"})
    assert edit.status_code == 200, edit.text
    assert edit.json()["output_format"] == "mp4"


def test_a_remix_keeps_the_format(http: httpx.Client, complete: Create) -> None:
    remix = http.post(f"/v1/videos/{complete(output_format='gif')}/remix", json={"prompt": "a blue circle"})
    assert remix.json()["output_format"] == "gif"


def test_an_uploaded_animated_webp_is_a_video(http: httpx.Client, tmp_path: Path) -> None:
    WRITERS["webp"](brightening(), tmp_path / "made", Encoding(8))
    files = {"video": ("a.webp", (tmp_path / "made").read_bytes(), "image/webp")}
    answer = http.post("/v1/videos/edits", data=PROMPT, files=files)
    assert answer.status_code == 200, answer.text
    assert answer.json()["num_frames"] == 16


@pytest.mark.parametrize("output_format", list(MEDIA_TYPES))
def test_a_deleted_video_leaves_no_file(
    http: httpx.Client, settings: Settings, complete: Create, output_format: OutputFormat
) -> None:
    video_id = complete(output_format=output_format)
    folder = Path(settings.artifacts) / video_id
    assert len(list(folder.iterdir())) == 3
    http.delete(f"/v1/videos/{video_id}")
    assert not folder.exists()
