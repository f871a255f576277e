"""Images and videos as input, from the official client to the decoded MP4, with a real worker."""

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from tests.e2e.conftest import Serve
from tests.mp4 import decode_mp4

# The client warns about OpenAI's own service, not about the API.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

CLASS = {"class_label": "right", "model": "tiny", "seed": 7}
# The client requires seconds. The tiny model continues by a quarter of one.
SHORT = {"seconds": "0.25"}


@pytest.fixture
def client(served: Serve) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{served.url}/v1", api_key="unused") as client:
        yield client


def make_picture() -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(content, "PNG")
    return content.getvalue()


def frames_of(served: Serve, video_id: str, folder: Path) -> np.ndarray:
    served.wait_until(video_id, "completed")
    path = folder / f"{video_id}.mp4"
    path.write_bytes(served.http.get(f"/v1/videos/{video_id}/content").content)
    return decode_mp4(path).frames


def test_an_image_starts_a_video_that_is_extended_twice_and_edited(
    served: Serve, client: OpenAI, tmp_path: Path
) -> None:
    first = client.videos.create(prompt="", input_reference=("red.png", make_picture()), extra_body=CLASS)
    start = frames_of(served, first.id, tmp_path)
    assert len(start) == 4

    async def continue_and_edit() -> tuple[str, str]:
        async with AsyncOpenAI(base_url=f"{served.url}/v1", api_key="unused") as client:
            clip = ("a.mp4", (tmp_path / f"{first.id}.mp4").read_bytes())
            longer = await client.videos.extend(prompt="", seconds="4", video=clip, extra_body=CLASS | SHORT)
            edited = await client.videos.edit(prompt="", video=clip, extra_body=CLASS)
            return longer.id, edited.id

    longer_id, edited_id = asyncio.run(continue_and_edit())
    longer = frames_of(served, longer_id, tmp_path)
    assert len(longer) == 6
    assert np.abs(longer[:2].astype(int) - start[:2]).mean() < 8  # encoded twice
    assert served.get(longer_id)["seconds"] == "0.75"
    assert len(frames_of(served, edited_id, tmp_path)) == 4
    # This version of the client sends files only.
    again = served.http.post("/v1/videos/extensions", json={"video": {"id": longer_id}} | SHORT).json()
    assert again["source_video_id"] == longer_id
    assert len(frames_of(served, again["id"], tmp_path)) == 8
