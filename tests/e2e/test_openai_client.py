"""The official client, unchanged, against `framedit serve` with a real worker and an API key."""

import asyncio
import io
import json
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Video
from PIL import Image

from tests.e2e.conftest import REPOSITORY, Serve, serving
from tests.forked import framedit
from tests.mp4 import decode_mp4
from tests.tiny_checkpoint import make_tiny_checkpoint

# The client warns about OpenAI's own service, not about the API.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

FAST = {"class_label": "right", "seed": 7}
# The shortest video of a text model.
PROMPT = {"model": "demo-text", "prompt": "a red circle moving right on a black background"}
BRIEF = {"num_inference_steps": 2, "num_frames": 4}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keyed") / "data"


def make_key(data_dir: Path, *limits: str) -> str:
    """Create an API key with `framedit keys create`."""
    made = framedit("keys", "create", "--data-dir", data_dir, *limits)
    made.check_returncode()
    return made.stdout.strip()


@pytest.fixture(scope="module")
def token(data_dir: Path) -> str:
    return make_key(data_dir)


@pytest.fixture(scope="module")
def served(data_dir: Path, token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    root = tmp_path_factory.mktemp("both")
    make_tiny_checkpoint(root / "tiny")
    (root / "demo-text").symlink_to(REPOSITORY / "checkpoints" / "demo-text", target_is_directory=True)
    with serving(data_dir, root, api_key=token) as running:
        yield running


@pytest.fixture
def client(served: Serve, token: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key=token) as client:
        yield client
        for video in client.videos.list():
            client.videos.delete(video.id)


@dataclass
class AnswerLog:
    """Records the answers to a client: time, request and answer."""

    answers: list[tuple[float, str, Any]] = field(default_factory=list)

    def client(self, served: Serve, token: str) -> OpenAI:
        http_client = openai.DefaultHttpxClient(event_hooks={"response": [self._note]})
        return OpenAI(base_url=f"{served.url}/v1", api_key=token, http_client=http_client)

    def _note(self, answer: Any) -> None:
        self.answers.append((time.monotonic(), f"{answer.request.method} {answer.request.url.path}", answer))


def assert_decodes(client: OpenAI, video: Video, num_frames: int, size: tuple[int, int], folder: Path) -> None:
    """Check the MP4, the thumbnail and the spritesheet of a video."""
    client.videos.download_content(video.id).write_to_file(folder / "video.mp4")
    decoded = decode_mp4(folder / "video.mp4")
    assert decoded.frames.shape == (num_frames, *size[::-1], 3)
    assert decoded.codec.startswith("h264")
    for variant, kind in (("thumbnail", "WEBP"), ("spritesheet", "JPEG")):
        content = client.videos.download_content(video.id, variant=variant).read()  # type: ignore[arg-type]
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert image.format == kind
            assert image.width >= size[0]


def test_create_a_video_and_download_its_files(client: OpenAI, tmp_path: Path) -> None:
    video = client.videos.create_and_poll(model="tiny", prompt="", extra_body=FAST)
    assert (video.status, video.progress, video.size, video.seconds) == ("completed", 100, "16x16", "0.5")
    assert video.to_dict()["class_name"] == "right"
    assert_decodes(client, video, 4, (16, 16), tmp_path)


def test_a_remix_keeps_the_seed_and_changes_the_content(client: OpenAI, tmp_path: Path) -> None:
    source = client.videos.create_and_poll(**PROMPT, extra_body={**BRIEF, "seed": 3})
    remix = client.videos.remix(source.id, prompt="a blue star moving up on a white background")
    remix = client.videos.poll(remix.id)
    assert (remix.status, remix.remixed_from_video_id) == ("completed", source.id)
    assert remix.to_dict()["seed"] == 3
    assert_decodes(client, remix, 4, (64, 64), tmp_path)
    first, second = (client.videos.download_content(video.id).read() for video in (source, remix))
    assert first != second


def test_list_all_pages_and_delete_each_video(client: OpenAI) -> None:
    made = client.videos.create(model="tiny", prompt="", extra_body={**FAST, "n": 5}).to_dict()
    ids = [video["id"] for video in made["data"]]  # type: ignore[index, attr-defined]
    assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == ids
    for video_id in ids:
        assert client.videos.delete(video_id).deleted
    assert list(client.videos.list()) == []
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(ids[0])


def test_the_asynchronous_client_works_too(served: Serve, token: str, tmp_path: Path) -> None:
    async def use() -> None:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key=token) as client:
            made = [
                client.videos.create_and_poll(model="tiny", prompt="", extra_body=FAST | {"seed": i}) for i in (1, 2)
            ]
            videos = await asyncio.gather(*made)
            assert [video.status for video in videos] == ["completed", "completed"]
            (tmp_path / "video.mp4").write_bytes((await client.videos.download_content(videos[0].id)).read())
            assert decode_mp4(tmp_path / "video.mp4").frames.shape == (4, 16, 16, 3)
            assert {video.id async for video in client.videos.list(limit=1)} == {video.id for video in videos}
            with pytest.raises(openai.BadRequestError, match="takes no prompt"):
                await client.videos.remix(videos[0].id, prompt="x")
            for video in videos:
                assert (await client.videos.delete(video.id)).deleted

    asyncio.run(use())


def test_the_client_polls_at_the_pace_of_the_header(served: Serve, token: str) -> None:
    log = AnswerLog()
    with log.client(served, token) as client:
        video = client.videos.create_and_poll(model="tiny", prompt="", extra_body=FAST | {"num_inference_steps": 400})
        client.videos.delete(video.id)
    polls = [(at, answer) for at, request, answer in log.answers if request == f"GET /v1/videos/{video.id}"]
    pauses = [int(answer.headers["openai-poll-after-ms"]) / 1000 for _, answer in polls[:-1]]
    assert pauses, "the video was completed at the first poll"
    for (before, _), (after, _), pause in zip(polls, polls[1:], pauses, strict=False):
        assert after - before >= pause
    assert "openai-poll-after-ms" not in polls[-1][1].headers


def test_the_client_waits_for_retry_after_and_then_succeeds(served: Serve, data_dir: Path) -> None:
    limited = make_key(data_dir, "--requests-per-minute", "30")
    log = AnswerLog()
    refusals: list[int] = []
    with log.client(served, limited) as client:
        for _ in range(200):
            client.models.list()  # raises when the client gives up
            refusals = [i for i, (_, _, answer) in enumerate(log.answers) if answer.status_code == 429]
            if refusals:
                break
    assert refusals, "no request was refused"
    for i in refusals:
        (refused_at, _, refusal), (next_at, _, _) = log.answers[i], log.answers[i + 1]
        assert next_at - refused_at >= int(refusal.headers["retry-after"]) > 0
    assert log.answers[-1][2].status_code == 200


def test_the_printed_example_uses_the_key_and_works(served: Serve, token: str) -> None:
    banner = served.log.read_text().partition("Example")[2]
    [asking] = re.findall(r"curl .*?/v1/videos -H .*?'\n", banner, re.DOTALL)
    assert asking.startswith('curl -s -H "Authorization: Bearer $FRAMEDIT_API_KEY"')
    assert token not in served.log.read_text()
    words = shlex.split(asking.replace("\\\n", " ").replace("$FRAMEDIT_API_KEY", token))
    headers = dict(words[i + 1].split(": ", 1) for i, word in enumerate(words) if word == "-H")
    [url] = [word for word in words if word.startswith("http")]
    answer = httpx.post(url, headers=headers, content=words[words.index("-d") + 1])
    assert answer.status_code == 200, answer.text
    assert httpx.post(url, json=json.loads(words[words.index("-d") + 1])).status_code == 401
    followed = [line for line in banner.splitlines() if "VIDEO_ID" in line]
    assert len(followed) == 2
    assert all('-H "Authorization: Bearer $FRAMEDIT_API_KEY"' in line for line in followed)
    served.http.delete(f"/v1/videos/{answer.json()['id']}")
