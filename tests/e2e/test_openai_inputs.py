"""The official client, sync and async: every method that makes a video from an image or another video."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI, omit
from openai.resources import Videos

from tests.e2e.conftest import Serve
from tests.e2e.test_continuations import CLASS, client, make_picture
from tests.mp4 import decode_mp4

__all__ = ["client"]

# The client warns about OpenAI's own service, not about the API.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


# Each method that makes a video from another one or from an image, for both clients: `videos` is the resource of one,
# and `clip` a file of the video `source`. The client sends files; other inputs are in its `extra_body`. The tiny model
# makes 4 frames, and continues them by 2.
TINY = {"model": "tiny", "class_label": "left", "seed": 5}
FROM_INPUT: dict[str, Callable[[Any, str, Path], Any]] = {
    "create, file": lambda videos, source, clip: videos.create(
        prompt="", input_reference=("red.png", make_picture()), extra_body=TINY
    ),
    "create, path": lambda videos, source, clip: videos.create(prompt="", input_reference=clip, extra_body=TINY),
    "create, image_url": lambda videos, source, clip: videos.create(
        prompt="", extra_body=TINY | {"input_reference": {"image_url": data_url(make_picture())}}
    ),
    "edit, file": lambda videos, source, clip: videos.edit(prompt="", video=clip, extra_body=TINY | {"strength": 0.5}),
    "edit, id": lambda videos, source, clip: videos.edit(
        prompt="", video=omit, extra_body=TINY | {"video": {"id": source}, "strength": 0.5}
    ),
    "extend, file": lambda videos, source, clip: videos.extend(prompt="", seconds="0.25", video=clip, extra_body=TINY),
    "extend, id": lambda videos, source, clip: videos.extend(
        prompt="", seconds="0.25", video=omit, extra_body={"video": {"id": source}}
    ),
    "remix": lambda videos, source, clip: videos.remix(source, prompt="", extra_body={"seed": 5}),
}
USES = {"create": "first", "edit": "edit", "extend": "extend", "remix": None}
NUM_FRAMES = {"extend": 6}


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("method", FROM_INPUT)
def test_a_video_from_an_input(client: OpenAI, served: Serve, tmp_path: Path, method: str, is_async: bool) -> None:
    source = client.videos.create_and_poll(model="tiny", prompt="", extra_body=CLASS).id
    clip = tmp_path / "source.mp4"
    client.videos.download_content(source).write_to_file(clip)
    if is_async:

        async def use() -> Any:
            async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="unused") as asynchronous:
                made = await FROM_INPUT[method](asynchronous.videos, source, clip)
                video = await asynchronous.videos.poll(made.id)
                content = await asynchronous.videos.download_content(video.id)
                (tmp_path / "made.mp4").write_bytes(await content.aread())
                return video

        video = asyncio.run(use())
    else:
        video = client.videos.poll(FROM_INPUT[method](client.videos, source, clip).id)
        client.videos.download_content(video.id).write_to_file(tmp_path / "made.mp4")
    assert video.status == "completed", video.error
    name, fields = method.partition(",")[0], video.to_dict()
    assert (fields["reference"] or {"use": None})["use"] == USES[name]
    assert fields["source_video_id"] == (source if "id" in method.split() else None)
    assert video.remixed_from_video_id == (source if name == "remix" else None)
    assert decode_mp4(tmp_path / "made.mp4").frames.shape == (NUM_FRAMES.get(name, 4), 16, 16, 3)


def test_raw_and_streamed_responses(client: OpenAI, tmp_path: Path) -> None:
    raw = client.videos.with_raw_response.create(
        model="tiny", prompt="", input_reference=("red.png", make_picture()), extra_body=CLASS
    )
    assert raw.headers["x-request-id"]
    video = client.videos.poll(raw.parse().id)
    with client.videos.with_streaming_response.download_content(video.id) as streamed:
        streamed.stream_to_file(tmp_path / "video.mp4")
    assert decode_mp4(tmp_path / "video.mp4").frames.shape == (4, 16, 16, 3)
    assert client.videos.with_raw_response.delete(video.id).parse().deleted


def test_the_methods_that_the_server_does_not_have_raise_errors_that_say_so(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="there is no route POST /v1/videos/characters"):
        client.videos.create_character(name="circle", video=("a.mp4", b"x"))
    with pytest.raises(openai.NotFoundError, match="there is no route GET /v1/videos/characters"):
        client.videos.get_character("char_1")


def test_every_method_of_the_client_is_tested() -> None:
    tested = {"create", "create_and_poll", "poll", "retrieve", "list", "download_content", "delete"}
    tested |= {"remix", "edit", "extend", "create_character", "get_character"}
    views = {"with_raw_response", "with_streaming_response"}
    assert {name for name in dir(Videos) if not name.startswith("_")} == tested | views
