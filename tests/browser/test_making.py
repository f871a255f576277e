"""The page with a real worker: videos are created and watched through its controls."""

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import BrowserContext, Locator, expect

from tests.browser.conftest import OpenTab, Tab
from tests.e2e.conftest import Serve
from tests.waiting import wait_for


@pytest.fixture
def tab(served: Serve, open_tab: OpenTab) -> Tab:
    for video in served.http.get("/v1/videos", params={"limit": 100}).json()["data"]:
        served.http.delete(f"/v1/videos/{video['id']}")
    tab = open_tab(served.url)
    expect(tab.page.get_by_text("Your videos will appear here")).to_be_visible()
    return tab


def set_up(tab: Tab, model: str, **settings: str) -> None:
    tab.page.get_by_label("Model").select_option(model)
    if tab.page.locator("#settings-button").get_attribute("aria-expanded") == "false":
        tab.page.get_by_role("button", name="Settings").click()
    for label, value in settings.items():
        tab.page.get_by_label(label, exact=True).fill(value)


def ask_for_class(tab: Tab, **settings: str) -> None:
    set_up(tab, "tiny", **settings)
    tab.page.locator("#classes").get_by_text("right").click()
    tab.page.get_by_role("button", name="Generate").click()


def expect_to_play(tile: Locator) -> None:
    film = tile.locator("video")
    expect(film).to_be_visible()
    film.evaluate(
        "film => new Promise(done => film.addEventListener('timeupdate', () => film.currentTime > 0 && done()))"
    )


def test_a_prompt_becomes_a_video_that_plays_after_a_reload(tab: Tab) -> None:
    set_up(tab, "demo-text", Steps="16", Frames="4")
    prompt = tab.page.get_by_label("Prompt", exact=True)
    prompt.fill("a yellow circle growing on a brown background")
    prompt.press("Enter")

    tile = tab.page.locator(".tile")
    expect(tile).to_contain_text("a yellow circle growing")
    tab.wait_until("document.querySelector('.meter')?.value > 0")
    expect(tile.locator("img.preview")).to_have_attribute("src", re.compile("^data:image/webp"))
    expect(tile).to_have_attribute("data-status", "completed")
    expect_to_play(tile)

    tab.page.reload()
    expect(tile).to_contain_text("a yellow circle growing")
    expect_to_play(tile)


def test_a_cancelled_video_shows_its_state(tab: Tab) -> None:
    set_up(tab, "demo-text", Steps="1000")
    tab.page.get_by_role("button", name="a white star spinning").click()
    tab.page.get_by_role("button", name="Generate").click()
    tile = tab.page.locator(".tile")
    expect(tile).to_have_attribute("data-status", "in_progress")
    tile.get_by_role("button", name="Cancel").click()
    expect(tile).to_contain_text("Cancelled")
    tile.hover()
    tile.get_by_role("button", name="Delete").click()
    tab.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(tile).to_have_count(0)


def test_two_tabs_show_the_same_videos(tab: Tab, served: Serve, open_tab: OpenTab) -> None:
    other = open_tab(served.url)
    ask_for_class(tab)
    tile, same = tab.page.locator(".tile"), other.page.locator(".tile")
    for one in (tile, same):
        expect(one).to_have_attribute("data-status", "completed")
    ask_for_class(other)
    expect(tile).to_have_count(2)
    same.first.hover()
    same.first.get_by_role("button", name="Delete").click()
    other.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(tile).to_have_count(1)
    # The tab may have requested the file of the video just when the other one deleted it.
    tab.faults = [fault for fault in tab.faults if "404 (Not Found)" not in fault]


def test_repeat_keeps_everything_but_the_seed(tab: Tab, served: Serve) -> None:
    ask_for_class(tab, Seed="7", Steps="3")
    tiles = tab.page.locator(".tile")
    expect(tiles).to_have_attribute("data-status", "completed")
    tiles.hover()
    tiles.get_by_role("button", name="Repeat").click()
    expect(tab.page.locator(".tile[data-status=completed]")).to_have_count(2)
    again, first = served.http.get("/v1/videos").json()["data"]
    assert (first["class_name"], first["num_inference_steps"], first["seed"]) == ("right", 3, 7)
    assert (again["class_name"], again["num_inference_steps"]) == ("right", 3)
    assert again["seed"] != 7


@pytest.mark.parametrize(
    ("choice", "suffix", "element"),
    [("WebM", "webm", "video"), ("GIF", "gif", "img"), ("PNG frames (ZIP)", "zip", "img")],
)
def test_a_video_has_the_chosen_format(tab: Tab, served: Serve, choice: str, suffix: str, element: str) -> None:
    set_up(tab, "tiny", Steps="2")
    tab.page.get_by_label("Format", exact=True).select_option(choice)
    quality = tab.page.get_by_label("Quality", exact=True)
    if suffix == "zip":
        expect(quality).to_be_hidden()
    else:
        quality.select_option("low")
    tab.page.locator("#classes").get_by_text("right").click()
    tab.page.get_by_role("button", name="Generate").click()
    tile = tab.page.locator(".tile")
    expect(tile).to_have_attribute("data-status", "completed")
    tile.locator(".opener").click()
    viewer = tab.page.get_by_role("dialog")
    shown = viewer.locator(f"#viewer-stage {element}{'.preview' if element == 'img' else ''}")
    expect(shown).to_be_visible()
    if element == "img":
        assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    expect(viewer).to_contain_text(choice)
    with tab.page.expect_download() as download:
        viewer.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(f".{suffix}")


def test_a_chosen_adapter_changes_the_video(tab: Tab, served: Serve) -> None:
    wait_for(lambda: served.http.get("/v1/models/demo-text").json()["adapters"], "the adapters of the model")
    tab.page.reload()
    set_up(tab, "tiny")
    expect(tab.page.get_by_label("Adapter", exact=True)).to_be_hidden()
    set_up(tab, "demo-text", Steps="2", Frames="4")
    tab.page.get_by_label("Adapter", exact=True).select_option("demo-sparkle")
    tab.page.get_by_label("Prompt", exact=True).fill("a red sparkle")
    tab.page.get_by_role("button", name="Generate").click()
    expect(tab.page.locator(".tile")).to_have_attribute("data-status", "completed")
    (video,) = served.http.get("/v1/videos").json()["data"]
    assert video["adapters"] == [{"name": "demo-sparkle", "scale": 1.0}]


def test_an_image_starts_a_video_and_the_video_is_extended(tab: Tab, served: Serve, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    set_up(tab, "tiny", Steps="2")
    tab.page.locator("#file").set_input_files(tmp_path / "red.png")
    expect(tab.page.locator("#attached")).to_contain_text("Starts from red.png")
    ask_for_class(tab, Seed="7")
    tiles = tab.page.locator(".tile")
    expect(tiles).to_have_attribute("data-status", "completed")
    expect(tab.page.locator("#attached")).to_be_hidden()
    tiles.hover()
    tiles.get_by_role("button", name="Extend").click()
    expect(tab.page.locator(".tile[data-status=completed]")).to_have_count(2)
    longer, first = served.http.get("/v1/videos").json()["data"]
    assert first["reference"]["use"] == "first"
    assert (longer["source_video_id"], longer["num_frames"]) == (first["id"], 6)
    tab.page.locator(".tile .opener").first.click()
    seam = tab.page.locator("#viewer-seam")
    expect(seam).not_to_have_attribute("hidden", "")
    assert seam.evaluate("seam => seam.style.getPropertyValue('--at')").startswith("66.6")


def test_an_edit_sends_the_new_prompt(tab: Tab, served: Serve) -> None:
    set_up(tab, "demo-text", Steps="2", Frames="4")
    prompt = tab.page.get_by_label("Prompt", exact=True)
    prompt.fill("a red circle moving right on a black background")
    prompt.press("Enter")
    tile = tab.page.locator(".tile")
    expect(tile).to_have_attribute("data-status", "completed")
    tile.hover()
    tile.get_by_role("button", name="Edit").click()
    expect(tab.page.get_by_text("Edit of")).to_be_visible()
    prompt.fill("a blue circle moving right on a black background")
    tab.page.get_by_role("button", name="Edit", exact=True).last.click()
    expect(tab.page.locator(".tile[data-status=completed]")).to_have_count(2)
    edit, first = served.http.get("/v1/videos").json()["data"]
    assert (edit["source_video_id"], edit["strength"], edit["num_frames"]) == (first["id"], 0.6, 4)


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")  # the client's word on another server
def test_the_copied_python_code_runs(
    tab: Tab, context: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for_class(tab, Seed="7")
    tab.page.locator(".tile[data-status=completed] .opener").click()
    tab.page.get_by_role("button", name="Copy as Python").click()
    expect(tab.page.get_by_text("Copied")).to_be_visible()
    monkeypatch.chdir(tmp_path)
    exec(tab.page.evaluate("navigator.clipboard.readText()"), {})
    assert (tmp_path / "video.mp4").read_bytes()[4:8] == b"ftyp"
    expect(tab.page.locator(".tile")).to_have_count(2)
