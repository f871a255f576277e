"""The page compares models: one input and one seed, and films that play in step."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from redis import Redis

from jobs.cards import ModelCard, announce
from tests.browser.conftest import OpenTab, Tab
from tests.browser.test_page import Finish, reaches_out_of_the_window, serious_faults


@pytest.fixture
def tab(http: httpx.Client, redis: Redis, text_card: ModelCard, server_url: str, open_tab: OpenTab) -> Tab:
    for index in range(4):
        announce(redis, text_card.model_copy(update={"id": f"text-{index}"}), "w1", ttl_seconds=600)
    return open_tab(server_url)


def compare(page: Page, *others: str) -> None:
    page.get_by_label("Model").select_option("text-0")
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    page.get_by_role("button", name="Compare").click()
    dialog = page.get_by_role("dialog")
    for name in others:
        dialog.get_by_label(name, exact=True).check(force=True)


def test_videos_of_one_prompt_and_seed_play_in_step(tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes) -> None:
    page = tab.page
    page.emulate_media(reduced_motion="reduce")  # nothing plays by itself
    compare(page, "text-1", "text-2")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Generate").click()
    expect(dialog.locator("#compare-columns > li[data-status=queued]")).to_have_count(3)
    videos = http.get("/v1/videos").json()["data"]
    assert {video["model"] for video in videos} == {"text-0", "text-1", "text-2"}
    assert {video["prompt"] for video in videos} == {"a red circle"}
    assert len({video["seed"] for video in videos}) == 1
    for video in videos:
        finish(video["id"], mp4)
    films = dialog.locator("video")
    expect(films).to_have_count(3)
    expect(dialog.get_by_text("Rows computed")).to_have_count(3)

    slider = dialog.get_by_role("slider", name="Position")
    expect(slider).to_be_enabled()
    tab.wait_until("Number(document.getElementById('compare-time').max) > 1.9")
    slider.fill("1")
    tab.wait_until("[...document.querySelectorAll('#compare video')].every(film => film.currentTime === 1)")
    slider.press("ArrowRight")
    tab.wait_until("[...document.querySelectorAll('#compare video')].every(film => film.currentTime > 1.05)")
    dialog.get_by_role("button", name="Play").press("Enter")
    tab.wait_until("[...document.querySelectorAll('#compare video')].every(film => !film.paused)")
    dialog.get_by_role("button", name="Pause").press("Enter")
    times = films.evaluate_all("films => films.map(film => [film.currentTime, film.paused])")
    assert len({seconds for seconds, _ in times}) == 1
    assert all(paused for _, paused in times)


def test_models_with_another_input_are_disabled_with_the_reason(tab: Tab) -> None:
    page = tab.page
    compare(page)
    dialog = page.get_by_role("dialog")
    other = dialog.get_by_label("tiny-class", exact=True)
    expect(other).to_be_disabled()
    expect(other).to_have_accessible_description("takes a class")
    for name in ("text-1", "text-2", "text-3"):
        dialog.get_by_label(name, exact=True).check(force=True)
    expect(dialog.get_by_label("tiny-text", exact=True)).to_have_accessible_description("at most 4 models")
    for name in ("text-0", "text-1", "text-2", "text-3"):
        dialog.get_by_label(name, exact=True).uncheck(force=True)
    expect(dialog.get_by_role("button", name="Generate")).to_be_disabled()
    other.check(force=True)
    expect(dialog.get_by_label("Class for all")).to_be_visible()
    expect(dialog.get_by_label("text-0", exact=True)).to_have_accessible_description("takes a prompt")


def test_an_error_of_one_model_does_not_stop_the_others(
    tab: Tab, http: httpx.Client, redis: Redis, text_card: ModelCard, finish: Finish, mp4: bytes
) -> None:
    announce(redis, text_card.model_copy(update={"id": "short", "max_prompt_characters": 5}), "w1", ttl_seconds=600)
    page = tab.page
    tab.faults = [fault for fault in tab.faults if "400" not in fault]
    page.reload()
    compare(page, "short")
    dialog = page.get_by_role("dialog")
    with page.expect_response(lambda answer: answer.status == 400):
        dialog.get_by_role("button", name="Generate").click()
    expect(dialog.locator("li[data-status=failed]")).to_contain_text("short")
    [video] = http.get("/v1/videos").json()["data"]
    finish(video["id"], mp4)
    expect(dialog.locator("li[data-status=completed] video")).to_have_count(1)
    tab.faults = [fault for fault in tab.faults if "400" not in fault]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 320)])
def test_the_comparison_is_accessible_and_fits(
    scheme: str, width: int, tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes, tmp_path: Path
) -> None:
    page = tab.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    compare(page, "text-1", "text-2", "text-3")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Generate").click()
    expect(dialog.locator("#compare-columns > li[data-status=queued]")).to_have_count(4)
    for video in http.get("/v1/videos").json()["data"][1:]:
        finish(video["id"], mp4)
    expect(dialog.locator(".developed")).to_have_count(3)
    assert serious_faults(page) == []
    assert reaches_out_of_the_window(page) == []
    page.screenshot(path=tmp_path / "compare.png")
