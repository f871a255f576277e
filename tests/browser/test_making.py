"""Videos that a real worker makes, asked for and watched as a person would."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, expect

from tests.e2e.conftest import Serve

from .conftest import OpenTab, Tab


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


def test_a_prompt_becomes_a_video_that_plays_and_stays(tab: Tab) -> None:
    set_up(tab, "demo-text", Steps="16", Frames="4")
    prompt = tab.page.get_by_label("Prompt")
    prompt.fill("a yellow circle growing on a brown background")
    prompt.press("Enter")

    tile = tab.page.locator(".tile")
    expect(tile).to_contain_text("a yellow circle growing")
    tab.page.wait_for_function("() => { const bar = document.querySelector('.meter'); return bar.value > 0 }")
    expect(tile.locator("img.preview")).to_have_attribute("src", re.compile("^data:image/webp"))
    expect(tile).to_have_attribute("data-status", "completed")
    expect_to_play(tile)

    tab.page.reload()
    expect(tile).to_contain_text("a yellow circle growing")
    expect_to_play(tile)


def test_a_video_that_is_cancelled_says_so(tab: Tab) -> None:
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


def test_two_tabs_show_the_same(tab: Tab, served: Serve, open_tab: OpenTab) -> None:
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


def test_again_is_the_same_with_a_new_seed(tab: Tab, served: Serve) -> None:
    ask_for_class(tab, Seed="7", Steps="3")
    tiles = tab.page.locator(".tile")
    expect(tiles).to_have_attribute("data-status", "completed")
    tiles.hover()
    tiles.get_by_role("button", name="Again").click()
    expect(tab.page.locator(".tile[data-status=completed]")).to_have_count(2)
    again, first = served.http.get("/v1/videos").json()["data"]
    assert (first["class_name"], first["num_inference_steps"], first["seed"]) == ("right", 3, 7)
    assert (again["class_name"], again["num_inference_steps"]) == ("right", 3)
    assert again["seed"] != 7


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")  # the client's word on another server
def test_what_is_copied_as_python_runs(
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
