"""The official `openai` package: every method of `client.videos`."""

import asyncio
import io
import warnings

import openai
from openai import AsyncOpenAI, OpenAI

from tests.interop.cases import MODEL, NUM_STEPS, PROMPT, URL, Case, require_mp4, run_cases

# The package warns about OpenAI's own service, not about the API.
warnings.filterwarnings("ignore", "The Sora API", DeprecationWarning)

client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)
EXTRA = {"num_inference_steps": NUM_STEPS, "seed": 7}


def create_and_poll() -> str:
    video = client.videos.create_and_poll(model=MODEL, prompt=PROMPT, seconds="1", extra_body=EXTRA)
    assert video.status == "completed", video
    return video.id


VIDEO_ID = ""


def completed() -> str:
    """The id of a completed video, which is made once."""
    global VIDEO_ID
    VIDEO_ID = VIDEO_ID or create_and_poll()
    return VIDEO_ID


def download(variant: str) -> bytes:
    return client.videos.download_content(completed(), variant=variant).read()


def error_of_unknown_model() -> str:
    try:
        client.videos.create(model="sora-2", prompt=PROMPT)
    except (openai.BadRequestError, openai.NotFoundError) as error:
        return str(error.body["message"])
    raise AssertionError("the request was accepted")


def several_pages() -> str:
    completed()
    create_and_poll()
    ids = [video.id for video in client.videos.list(limit=1)]
    assert len(ids) == len(set(ids)) >= 2
    return f"{len(ids)} pages"


def remix() -> str:
    video = client.videos.remix(completed(), prompt="a blue circle moving left on a black background")
    assert video.remixed_from_video_id == completed()
    return client.videos.poll(video.id).status


async def asynchronous() -> str:
    async with AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused") as client:
        video = await client.videos.create_and_poll(model=MODEL, prompt=PROMPT, extra_body=EXTRA)
        return require_mp4(await (await client.videos.download_content(video.id)).aread())


def a_png() -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    file.name = "first.png"
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    file.seek(0)
    return file


def a_video() -> tuple[str, bytes, str]:
    return "video.mp4", download("video"), "video/mp4"


def with_first_image() -> str:
    video = client.videos.create(model=MODEL, prompt=PROMPT, input_reference=a_png(), extra_body=EXTRA)
    return client.videos.poll(video.id).status


def delete() -> str:
    for video in list(client.videos.list()):
        assert client.videos.delete(video.id).deleted
    return "all deleted"


if __name__ == "__main__":
    run_cases(
        [
            Case("models.list", lambda: [model.id for model in client.models.list()]),
            Case("videos.create, poll", completed),
            Case("videos.create(prompt) without a model", lambda: client.videos.create(prompt=PROMPT).model),
            Case("videos.retrieve", lambda: client.videos.retrieve(completed()).status),
            Case("videos.list, page by page", several_pages),
            Case("videos.download_content", lambda: require_mp4(download("video"))),
            Case("  variant=thumbnail", lambda: f"{len(download('thumbnail'))} bytes"),
            Case("  variant=spritesheet", lambda: f"{len(download('spritesheet'))} bytes"),
            Case("videos.remix", remix),
            Case("AsyncOpenAI: create, poll, download", lambda: asyncio.run(asynchronous())),
            Case("an unknown model is an error of its class", error_of_unknown_model),
            Case("videos.create(input_reference=image)", with_first_image),
            Case(
                "videos.edit",
                lambda: client.videos.edit(prompt=PROMPT, video=a_video()).status,
            ),
            Case(
                "videos.extend",
                lambda: client.videos.extend(prompt=PROMPT, seconds="1", video=a_video()).status,
            ),
            Case(
                "videos.create_character",
                lambda: client.videos.create_character(name="circle", video=a_video()).id,
                may_be_refused=True,
            ),
            Case("videos.get_character", lambda: client.videos.get_character("char_1").id, may_be_refused=True),
            Case("videos.delete", delete),
        ]
    )
