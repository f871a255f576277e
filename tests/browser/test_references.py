"""The page and the images and videos that videos start from: dropped, repeated, and gone."""

import base64
import io
import json
import shlex
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import Tab
from tests.browser.test_making import expect_to_play, set_up, tab
from tests.e2e.conftest import Serve
from tests.e2e.test_continuations import frames_of
from tests.mp4 import decode_mp4
from tests.waiting import wait_for

__all__ = ["tab"]  # a page of the server with a worker

PROMPT = "a red circle moving right on a black background"

# The events of a browser while a file is dragged from a folder. A box takes it if it prevents the defaults.
DRAG = """(box, [content, name, type]) => {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    const dataTransfer = new DataTransfer();
    if (name) dataTransfer.items.add(new File([bytes], name, { type }));
    else dataTransfer.setData("text/plain", atob(content));
    const events = ["dragover", "drop"].map((kind) => {
        return new DragEvent(kind, { bubbles: true, cancelable: true, composed: true, dataTransfer });
    });
    return events.map((event) => !box.dispatchEvent(event));
}"""


def drag(box: Locator, content: bytes, name: str = "", kind: str = "") -> list[bool]:
    """Drag a file, or text without a name, onto a box; whether the page took dragover and drop."""
    return list(box.evaluate(DRAG, [base64.b64encode(content).decode(), name, kind]))


def make_picture() -> bytes:
    """A red circle on black, as the demo world has them."""
    image = Image.new("RGB", (64, 64), "black")
    ImageDraw.Draw(image).ellipse((12, 22, 32, 42), fill=(220, 40, 40))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def prompt_box(page: Page) -> Locator:
    return page.get_by_label("Prompt", exact=True)


def newest(served: Serve) -> dict[str, Any]:
    return dict(served.http.get("/v1/videos").json()["data"][0])


def make_from_picture(page: Page) -> Locator:
    """The tile of a video from a dropped picture."""
    assert drag(prompt_box(page), make_picture(), "circle.png", "image/png") == [True, True]
    expect(page.locator("#attached")).to_contain_text("Starts from circle.png")
    prompt_box(page).fill(PROMPT)
    page.get_by_role("button", name="Generate").click()
    tile = page.locator(".tile").first
    expect(tile).to_have_attribute("data-status", "completed")
    return tile


def test_a_file_dropped_on_the_prompt_starts_a_video(tab: Tab, served: Serve, tmp_path: Path) -> None:
    page = tab.page
    wait_for(lambda: served.http.get("/v1/models/demo-text").json()["adapters"], "the adapters of the model")
    page.reload()
    set_up(tab, "demo-text", Steps="8", Frames="4")
    page.get_by_label("Adapter", exact=True).select_option("demo-sparkle")
    tile = make_from_picture(page)
    expect_to_play(tile)
    expect(page.locator("#attached")).to_be_hidden()
    video = newest(served)
    assert video["reference"] == {"use": "first", "num_frames": 1, "fit": "crop"}
    assert (video["num_inference_steps"], video["num_frames"]) == (8, 4)
    assert video["adapters"] == [{"name": "demo-sparkle", "scale": 1.0}]
    first = frames_of(served, video["id"], tmp_path)[0].astype(int)
    picture = np.asarray(Image.open(io.BytesIO(make_picture())).convert("RGB"))
    assert np.abs(first - picture).mean() < 12


def test_dropped_text_belongs_to_the_prompt(tab: Tab) -> None:
    set_up(tab, "demo-text")
    assert drag(prompt_box(tab.page), b"a star") == [False, False]
    expect(tab.page.locator("#attached")).to_be_hidden()


def test_repeat_starts_from_the_same_picture(tab: Tab, served: Serve, tmp_path: Path) -> None:
    page = tab.page
    set_up(tab, "demo-text", Steps="4", Frames="4")
    tile = make_from_picture(page)
    first = newest(served)
    tile.hover()
    tile.get_by_role("button", name="Repeat").click()
    expect(page.locator(".tile[data-status=completed]")).to_have_count(2)
    again = newest(served)
    assert again["reference"] == first["reference"]
    assert again["seed"] != first["seed"]
    kept = ("prompt", "num_frames", "num_inference_steps", "sampler", "guidance_scale", "size")
    assert [again[name] for name in kept] == [first[name] for name in kept]
    pictures = [frames_of(served, video["id"], tmp_path)[0].astype(int) for video in (first, again)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 12


def test_repeat_keeps_an_extension_and_its_source(tab: Tab, served: Serve, tmp_path: Path) -> None:
    page = tab.page
    set_up(tab, "tiny", Steps="2")
    page.locator("#classes").get_by_text("right").click()
    page.get_by_role("button", name="Generate").click()
    tiles = page.locator(".tile")
    expect(tiles).to_have_attribute("data-status", "completed")
    source = newest(served)
    tiles.hover()
    tiles.get_by_role("button", name="Extend").click()
    expect(page.locator(".tile[data-status=completed]")).to_have_count(2)
    extension = newest(served)
    served.http.delete(f"/v1/videos/{source['id']}")
    expect(tiles).to_have_count(1)
    tiles.hover()
    tiles.get_by_role("button", name="Repeat").click()
    expect(page.locator(".tile[data-status=completed]")).to_have_count(2)
    again = newest(served)
    kept = ("reference", "num_frames", "overlap_frames", "class_label", "source_video_id")
    assert [again[name] for name in kept] == [extension[name] for name in kept]
    made = [frames_of(served, video["id"], tmp_path)[:2].astype(int) for video in (extension, again)]
    assert np.abs(made[0] - made[1]).mean() < 8


def test_repeat_says_that_the_picture_is_gone(tab: Tab, served: Serve) -> None:
    page = tab.page
    set_up(tab, "demo-text", Steps="2", Frames="4")
    tile = make_from_picture(page)
    data = served.log.with_suffix("")
    (data / "artifacts" / newest(served)["id"] / "reference.rgb").unlink()
    tile.hover()
    with page.expect_response(lambda answer: answer.status == 410):
        tile.get_by_role("button", name="Repeat").click()
    expect(page.get_by_role("alert").filter(has_text="is not stored any more")).to_be_visible()
    expect(page.locator(".tile")).to_have_count(1)
    tab.faults = [fault for fault in tab.faults if "410" not in fault]


def test_settings_are_used_without_the_picture_and_say_so(tab: Tab) -> None:
    page = tab.page
    set_up(tab, "demo-text", Steps="2", Frames="4")
    tile = make_from_picture(page)
    note = page.get_by_text("is not among the settings")
    expect(note).to_be_hidden()
    tile.locator(".opener").click()
    page.get_by_role("dialog").get_by_role("button", name="Use settings").click()
    expect(note).to_be_visible()
    drag(prompt_box(page), make_picture(), "circle.png", "image/png")
    expect(note).to_be_hidden()


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")  # the client's word on another server
def test_the_copied_code_makes_the_same_video(
    tab: Tab, served: Serve, context: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tab.page
    set_up(tab, "demo-text", Steps="2", Frames="4")
    make_from_picture(page).locator(".opener").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()").replace("\\\n", " "))
    first = newest(served)
    again = httpx.post(words[2], json=json.loads(words[words.index("-d") + 1])).json()
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_text("remix(")).to_be_visible()
    monkeypatch.chdir(tmp_path)
    exec(page.evaluate("navigator.clipboard.readText()"), {})
    made = [frames_of(served, video["id"], tmp_path) for video in (first, again)]
    made.append(decode_mp4(tmp_path / "video.mp4").frames)
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()
