"""A real Chromium and two servers: one with a worker, and one whose worker the tests replace."""

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from jobs.settings import Settings
from tests.browser.chromium import MISSING, find_chromium
from tests.e2e.conftest import REPOSITORY, Serve
from tests.e2e.conftest import serving as serving_all
from tests.server.conftest import finish, http, settings
from tests.server.serving import serving as serving_page
from tests.tiny_checkpoint import make_tiny_checkpoint
from tests.waiting import wait_for
from worker.output.formats.encoding import Encoding
from worker.output.formats.mp4 import write_mp4

__all__ = ["finish", "http", "settings"]  # fixtures: a client of the server below, and a stand-in for its worker

WAIT_SECONDS = 60


# The scope is the module: Playwright keeps an event loop in the main thread, in which later tests may want their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = find_chromium()
    if path is None:
        pytest.fail(MISSING, pytrace=False)
    expect.set_options(timeout=WAIT_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Serve]:
    """`framedit serve` with the demo text model and a tiny class model."""
    checkpoints = tmp_path_factory.mktemp("checkpoints")
    (checkpoints / "demo-text").symlink_to(REPOSITORY / "checkpoints" / "demo-text", target_is_directory=True)
    make_tiny_checkpoint(checkpoints / "tiny")
    with serving_all(tmp_path_factory.mktemp("served") / "data", checkpoints) as running:
        yield running


@pytest.fixture(scope="module")
def server_url(settings: Settings) -> Iterator[str]:
    """A server without a worker, which is gone when later tests share one of their own over the same database."""
    with serving_page(settings) as url:
        yield url


class Tab:
    """A page that records faults: messages in its console, and requests to other servers."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._origin = origin(url)
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(WAIT_SECONDS * 1000)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", self._on_request)
        self.page.goto(url)

    def wait_until(self, expression: str) -> None:
        """Wait until the expression is true. Playwright's own `wait_for_function` evaluates it a second time from
        within the page, which the page's Content-Security-Policy forbids."""
        wait_for(lambda: self.page.evaluate(expression), expression, WAIT_SECONDS)

    def _on_console(self, message: object) -> None:
        if getattr(message, "type", "") in ("error", "warning"):
            self.faults.append(getattr(message, "text", ""))

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)
        if not request.url.startswith(("data:", "blob:")) and origin(request.url) != self._origin:
            self.faults.append(f"requested another server: {request.url}")


def origin(url: str) -> tuple[str, str]:
    return urlsplit(url)[:2]


OpenTab = Callable[[str], Tab]


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context without state from other tests."""
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield context


@pytest.fixture
def open_tab(context: BrowserContext) -> Iterator[OpenTab]:
    """Opens the page in a new tab. At the end of the test, no tab may have logged a fault."""
    tabs: list[Tab] = []

    def open_tab(url: str) -> Tab:
        tabs.append(Tab(context, url))
        return tabs[-1]

    yield open_tab
    assert [tab.faults for tab in tabs] == [[]] * len(tabs)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A video of two seconds that brightens."""
    path = tmp_path_factory.mktemp("mp4") / "video.mp4"
    levels = np.linspace(40, 220, 16).astype(np.uint8)
    write_mp4(np.broadcast_to(levels[:, None, None, None], (16, 64, 96, 3)), path, Encoding(8))
    return path.read_bytes()
