"""The official client, unchanged, against the server."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from redis import Redis

from jobs.access.api_keys import KeyLimits, KeyStore
from jobs.videos.store import VideoStore

# The client warns of one service behind this API, not of the API.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

Finish = Callable[[str, bytes], None]


@pytest.fixture
def client(http: httpx.Client) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{http.base_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_create_and_retrieve(client: OpenAI) -> None:
    extensions = {"seed": 7, "guidance_scale": 3.5, "metadata": {"a": "b"}}
    video = client.videos.create(model="tiny-text", prompt="a red circle", seconds="2", extra_body=extensions)
    assert (video.status, video.model, video.size, video.seconds) == ("queued", "tiny-text", "96x64", "2")
    found = client.videos.retrieve(video.id)
    assert found.to_dict()["metadata"] == {"a": "b"}
    assert found.to_dict()["seed"] == 7


def test_a_prompt_alone_is_enough(client: OpenAI) -> None:
    assert client.videos.create(prompt="a red circle").model == "tiny-text"


def test_create_and_poll_then_download(client: OpenAI, store: VideoStore, finish: Finish, tmp_path: Path) -> None:
    def work() -> None:
        deadline = time.monotonic() + 20
        while not (waiting := store.unfinished()) and time.monotonic() < deadline:
            pass
        finish(waiting[0].id, b"the file")

    worker = threading.Thread(target=work)
    worker.start()
    video = client.videos.create_and_poll(model="tiny-text", prompt="a red circle")
    worker.join()
    assert (video.status, video.progress) == ("completed", 100)
    client.videos.download_content(video.id, variant="video").write_to_file(tmp_path / "out.mp4")
    assert client.videos.download_content(video.id, variant="thumbnail").read() == b"the thumbnail of the file"
    assert client.videos.download_content(video.id, variant="spritesheet").read() == b"the spritesheet of the file"
    assert (tmp_path / "out.mp4").read_bytes() == b"the file"


def test_pagination_continues_while_videos_are_deleted(client: OpenAI) -> None:
    made = [client.videos.create(model="tiny-text", prompt=f"circle {i}").id for i in range(5)]
    seen = []
    for video in client.videos.list(limit=2):
        seen.append(video.id)
        assert client.videos.delete(video.id).deleted
    assert seen == made[::-1]
    assert client.videos.list().data == []


def test_remix(client: OpenAI) -> None:
    video = client.videos.create(model="tiny-text", prompt="a red circle")
    assert client.videos.remix(video.id, prompt="a blue star").remixed_from_video_id == video.id


def test_errors_raise_the_client_s_error_types(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.videos.create(model="none", prompt="x")
    with pytest.raises(openai.BadRequestError) as caught:
        client.videos.create(model="tiny-text", prompt="x", size="720x1280")
    assert caught.value.param == "size"
    video = client.videos.create(model="tiny-text", prompt="x")
    with pytest.raises(openai.ConflictError):
        client.videos.download_content(video.id)


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny-class", "tiny-text"]
    assert client.models.retrieve("tiny-text").owned_by == "framedit"


def test_the_asynchronous_client(http: httpx.Client, store: VideoStore, finish: Finish) -> None:
    async def use() -> bytes:
        async with AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="unused", max_retries=0) as client:
            made = [(await client.videos.create(model="tiny-text", prompt=f"circle {i}")).id for i in range(3)]
            finish(made[0], b"the file")
            video = await client.videos.poll(made[0])
            assert video.status == "completed"
            assert [video.id async for video in client.videos.list(limit=1)] == made[::-1]
            assert (await client.videos.remix(made[0], prompt="a star")).remixed_from_video_id == made[0]
            with pytest.raises(openai.ConflictError):
                await client.videos.download_content(made[1])
            assert (await client.videos.delete(made[1])).deleted
            with pytest.raises(openai.NotFoundError):
                await client.videos.retrieve(made[1])
            return (await client.videos.download_content(made[0], variant="thumbnail")).read()

    assert asyncio.run(use()) == b"the thumbnail of the file"


def test_keys_and_limits_raise_the_client_s_error_types(http: httpx.Client, redis: Redis) -> None:
    _, token = KeyStore(redis).create(limits=KeyLimits(videos_in_flight=1))
    stranger = OpenAI(base_url=f"{http.base_url}/v1", api_key="fd-wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.videos.list()
    with OpenAI(base_url=f"{http.base_url}/v1", api_key=token, max_retries=0) as client:
        client.videos.create(model="tiny-text", prompt="x")
        with pytest.raises(openai.RateLimitError) as caught:
            client.videos.create(model="tiny-text", prompt="x")
        assert int(caught.value.response.headers["retry-after"]) > 0
