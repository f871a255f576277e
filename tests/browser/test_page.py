"""The page in states that the tests set directly, without a worker."""

import io
import json
import shlex
from collections.abc import Callable

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect
from redis import Redis

from jobs.access.api_keys import KeyStore
from jobs.cards import ModelCard, announce
from jobs.videos.store import VideoStore
from tests.browser.conftest import OpenTab, Tab

PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
Finish = Callable[[str, bytes], None]


def post(http: httpx.Client, **fields: object) -> str:
    body = {"model": "tiny-text", "prompt": "a red circle", "seed": 7} | fields
    answer = http.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def tab(http: httpx.Client, server_url: str, open_tab: OpenTab) -> Tab:
    return open_tab(server_url)


def look_again(page: Page) -> None:
    """Make the page poll at once."""
    page.evaluate("dispatchEvent(new Event('online'))")


def serious_faults(page: Page) -> list[str]:
    violations = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {[n['html'] for n in v['nodes']]}" for v in violations if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_accessibility_fault(
    scheme: str, tab: Tab, http: httpx.Client, store: VideoStore, finish: Finish, mp4: bytes
) -> None:
    page = tab.page
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    expect(page.get_by_text("Your videos will appear here")).to_be_visible()
    assert serious_faults(page) == []

    finish(post(http), mp4)
    store.start(post(http, prompt="a blue star"), "w1")
    store.fail(post(http, prompt="a green square"), "out_of_memory", "the device has too little memory for it")
    post(http, prompt="a white triangle")
    look_again(page)
    page.get_by_role("button", name="Settings").click()
    expect(page.locator(".tile")).to_have_count(4)
    assert serious_faults(page) == []

    page.get_by_label("Model").select_option("tiny-class")
    page.locator(".tile[data-status=completed] .opener").click()
    page.get_by_role("button", name="Copy as curl").click()
    assert serious_faults(page) == []


def test_each_tile_shows_queue_position_or_step(tab: Tab, http: httpx.Client, store: VideoStore) -> None:
    first, second, _ = (post(http, prompt=f"number {i}") for i in range(3))
    look_again(tab.page)
    tiles = tab.page.locator(".tile")
    expect(tiles.nth(2)).to_contain_text("Next in the queue")
    expect(tiles.nth(0)).to_contain_text("3rd in the queue")
    store.start(first, "w1")
    store.progress(first, 5, 20, "w1")
    store.fail(second, "out_of_memory", "the device has too little memory for it")
    expect(tiles.nth(2).get_by_role("progressbar")).to_have_js_property("value", 25)
    expect(tiles.nth(2)).to_contain_text("Step 5 of 20")
    store.progress(first, 10, 20, "w1", preview=PICTURE)
    expect(tiles.nth(2).locator("img")).to_have_js_property("src", PICTURE)
    expect(tiles.nth(2).locator("img")).to_be_visible()
    expect(tiles.nth(1)).to_contain_text("The device has too little memory for it")
    expect(tab.page.get_by_text("1 in progress, 1 queued")).to_be_visible()


def test_the_page_works_with_the_keyboard_alone(tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes) -> None:
    page = tab.page
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()  # nothing hidden takes the focus
    page.get_by_label("Prompt", exact=True).focus()
    page.keyboard.type("a red circle")
    page.keyboard.press("Enter")
    expect(page.locator(".tile")).to_have_count(1)
    finish(http.get("/v1/videos").json()["data"][0]["id"], mp4)
    opener = page.locator(".tile[data-status=completed] .opener")
    opener.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("a red circle")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()


def test_a_remix_keeps_the_seed_and_links_to_its_original(
    tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes
) -> None:
    page, source = tab.page, post(http)
    finish(source, mp4)
    look_again(page)
    page.locator(".tile").hover()
    page.get_by_role("button", name="Remix: a red circle").click()
    page.get_by_role("button", name="Cancel remix").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("")
    page.locator(".tile").hover()
    page.get_by_role("button", name="Remix: a red circle").click()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red circle")
    page.get_by_label("Prompt", exact=True).fill("a blue circle")
    page.get_by_role("button", name="Remix", exact=True).click()
    expect(page.locator(".tile")).to_have_count(2)
    remix = http.get("/v1/videos").json()["data"][0]
    assert (remix["prompt"], remix["seed"], remix["remixed_from_video_id"]) == ("a blue circle", 7, source)


def test_an_error_focuses_the_field_that_caused_it(tab: Tab) -> None:
    page = tab.page
    # Chromium itself writes a line for every answer that is an error.
    tab.faults = Tolerant("400")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert").filter(has_text="Prompt is missing")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    page.get_by_label("Prompt", exact=True).fill("a red circle")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Steps").fill("5000")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert").filter(has_text="Steps is 5000; tiny-text allows at most 250.")).to_be_visible()
    expect(page.get_by_label("Steps")).to_be_focused()
    page.get_by_role("button", name="Reset to defaults").click()
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)


class Tolerant(list[str]):
    """A list of faults without Chromium's messages about failed requests that contain `expected`."""

    def __init__(self, expected: str) -> None:
        super().__init__()
        self._expected = expected

    def append(self, fault: str) -> None:
        if not (fault.startswith("Failed to load resource") and self._expected in fault):
            super().append(fault)


def test_the_page_reports_an_unreachable_server_and_recovers(tab: Tab, http: httpx.Client) -> None:
    page = tab.page
    tab.faults = Tolerant("ERR_")
    expect(page.get_by_text("Your videos will appear here")).to_be_visible()
    page.context.set_offline(True)
    look_again(page)
    expect(page.get_by_role("alert").filter(has_text="The server does not answer")).to_be_visible()
    post(http)
    page.context.set_offline(False)
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.get_by_text("The server does not answer")).to_be_hidden()


def test_the_key_is_requested_and_sent_with_every_request(
    tab: Tab, redis: Redis, http: httpx.Client, finish: Finish, mp4: bytes
) -> None:
    finish(post(http), mp4)
    page = tab.page
    tab.faults = Tolerant("401")
    expect(page.locator(".tile .developed")).to_have_count(1)
    _, token = KeyStore(redis).create("the page", ["admin"])
    look_again(page)
    expect(page.get_by_role("dialog")).to_contain_text("This server needs an API key")
    page.get_by_label("Sent with every request").fill(token)
    page.get_by_role("button", name="Save").click()
    tab.requests.clear()
    expect(page.locator(".tile video[src^=blob] >> visible=true")).to_have_count(1)
    expect(page.locator(".tile .developed")).to_have_count(1)
    look_again(page)
    page.wait_for_event("requestfinished")
    requests = [request for request in tab.requests if "/v1/" in request.url]
    assert requests
    assert {request.all_headers().get("authorization") for request in requests} == {f"Bearer {token}"}

    page.reload()
    expect(page.locator(".tile .developed")).to_have_count(1)
    page.locator(".tile .opener").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert token not in page.evaluate("navigator.clipboard.readText()")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)


def test_the_page_without_a_key_asks_for_one(tab: Tab, redis: Redis, http: httpx.Client) -> None:
    page = tab.page
    tab.faults = Tolerant("401")
    _, token = KeyStore(redis).create("the page")
    page.reload()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("alert").filter(has_text="This server needs an API key.")).to_be_visible()
    expect(page.locator("#composer")).to_be_hidden()
    assert serious_faults(page) == []
    page.get_by_role("button", name="Enter a key").click()
    page.get_by_label("Sent with every request").fill("fd-nonsense")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_contain_text("This API key is unknown or was revoked.")
    page.get_by_label("Sent with every request").fill(token)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    expect(page.get_by_text("Your videos will appear here")).to_be_visible()
    expect(page.get_by_role("alert").filter(visible=True)).to_have_count(0)


def test_a_server_without_models_names_the_command_to_start(
    server_url: str, redis: Redis, text_card: ModelCard, open_tab: OpenTab
) -> None:
    page = open_tab(server_url).page
    expect(page.get_by_text("No model is available yet")).to_be_visible()
    announce(redis, text_card, "w1", ttl_seconds=600)
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_the_page_without_horizontal_scrolling(
    width: int, tab: Tab, http: httpx.Client, store: VideoStore, finish: Finish, mp4: bytes
) -> None:
    page = tab.page
    page.set_viewport_size({"width": width, "height": 720})
    page.emulate_media(reduced_motion="reduce")
    finish(post(http), mp4)
    store.fail(post(http, prompt="a green square"), "out_of_memory", "the device has too little memory for it")
    for number in range(3):
        post(http, prompt=f"a circle, number {number}, of the colour {'red' * 10}")
    look_again(page)
    expect(page.locator(".tile")).to_have_count(5)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Steps").fill("7")
    page.get_by_label("Number of videos").fill("10")
    expect(page.get_by_role("button", name="Settings")).to_contain_text("2 changed")
    assert reaches_out_of_the_window(page) == []
    assert serious_faults(page) == []
    page.get_by_label("Model").select_option("tiny-class")
    assert reaches_out_of_the_window(page) == []
    page.locator(".tile[data-status=completed] .opener").click()
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert reaches_out_of_the_window(page) == []
    assert serious_faults(page) == []


def reaches_out_of_the_window(page: Page) -> list[str]:
    """The controls that extend beyond the left or right edge of the screen."""
    if page.evaluate("document.documentElement.scrollWidth <= innerWidth"):
        outside = """parts => parts.filter(part => {
            const box = part.getBoundingClientRect();
            return box.width > 0 && (box.left < 0 || box.right > innerWidth);
        }).map(part => part.outerHTML)"""
        # The examples are a row to be moved along.
        return list(page.locator(":is(button, input, select, textarea):not(#examples *)").evaluate_all(outside))
    return ["the page"]


def test_the_copied_curl_command_makes_the_same_video(tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes) -> None:
    page = tab.page
    made = post(http, prompt='it\'s "red" & $round', num_inference_steps=9, negative_prompt="blur", clean_caption=True)
    finish(made, mp4)
    look_again(page)
    page.locator(".tile .opener").click()
    page.get_by_role("button", name="Copy as curl").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    words = shlex.split(page.evaluate("navigator.clipboard.readText()").replace("\\\n", " "))
    assert words[:2] == ["curl", "-s"]
    again = http.post(words[2], json=json.loads(words[words.index("-d") + 1])).json()
    first = http.get(f"/v1/videos/{made}").json()
    repeated = (
        "model",
        "prompt",
        "negative_prompt",
        "clean_caption",
        "seed",
        "num_inference_steps",
        "guidance_scale",
        "sampler",
        "size",
    )
    assert [again[name] for name in repeated] == [first[name] for name in repeated]


def test_a_url_that_names_a_video_opens_it(
    server_url: str, http: httpx.Client, open_tab: OpenTab, finish: Finish, mp4: bytes
) -> None:
    made = post(http)
    finish(made, mp4)
    tab = open_tab(f"{server_url}/#{made}")
    expect(tab.page.get_by_role("dialog")).to_contain_text("a red circle")


def test_with_reduced_motion_nothing_plays_automatically(
    tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes
) -> None:
    page = tab.page
    page.emulate_media(reduced_motion="reduce")
    finish(post(http), mp4)
    look_again(page)
    expect(page.locator(".tile[data-status=completed]")).to_have_count(1)
    expect(page.locator(".tile video")).to_have_count(0)
    page.get_by_role("button", name="Play all").click()
    page.locator(".tile video").evaluate("film => new Promise(done => film.addEventListener('timeupdate', done))")


def test_a_download_is_named_after_its_prompt(tab: Tab, http: httpx.Client, finish: Finish, mp4: bytes) -> None:
    finish(post(http), mp4)
    look_again(tab.page)
    tab.page.locator(".tile").hover()
    with tab.page.expect_download() as download:
        tab.page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.startswith("a-red-circle-")
    assert download.value.path().read_bytes() == mp4


def test_one_frame_is_shown_as_an_image(
    tab: Tab, http: httpx.Client, redis: Redis, text_card: ModelCard, finish: Finish
) -> None:
    announce(redis, text_card.model_copy(update={"id": "images", "min_frames": 1}), "w1", ttl_seconds=600)
    picture = io.BytesIO()
    Image.new("RGB", (96, 64), "red").save(picture, "PNG")
    made = post(http, model="images", num_frames=1)
    finish(made, picture.getvalue())
    page = tab.page
    look_again(page)
    page.locator(".tile .opener").click()
    image = page.get_by_role("dialog").get_by_role("img", name="The image")
    expect(image).to_have_js_property("naturalWidth", 96)
    expect(page.get_by_role("dialog").locator("video")).to_have_count(0)
