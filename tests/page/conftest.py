"""A browser for tests of the page: Debian's Chromium by Playwright. Without one of them these tests are skipped."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.page.mock_server import MockServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium")


# Not for the session: Playwright has an event loop in this thread, in which other tests cannot run theirs.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def server() -> Iterator[MockServer]:
    running = MockServer()
    yield running
    running.stop()


class Told:
    """What the page wrote to the console. A test that expects errors clears them."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def page(browser: Browser, server: MockServer, told: Told) -> Iterator[Page]:
    """The page, open and ready, 1280 wide and light. At the end it must not have written an error."""
    with opened(browser, server, told) as page:
        yield page
    assert told.errors == []


class opened:
    """The page in a window of its own: `with opened(browser, server, told, width=320) as page`."""

    def __init__(self, browser: Browser, server: MockServer, told: Told, *, width: int = 1280, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        self.context.set_default_timeout(10_000)
        self.server, self.told = server, told

    def __enter__(self) -> Page:
        page = self.context.new_page()
        self.told.watch(page)
        show(page, self.server.url)
        return page

    def __exit__(self, *_: object) -> None:
        self.context.close()


def show(page: Page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("html[data-ready]")


def ask(page: Page, question: str, *, wait: bool = True) -> None:
    """Ask, and wait until the answer ended."""
    page.fill("#message", question)
    page.keyboard.press("Enter")
    if wait:
        ended(page)


def ended(page: Page) -> None:
    page.wait_for_selector(".answer.last:not(.live) .actions [data-copy]", state="attached")


def vote(page: Page, samples: int = 8) -> None:
    """Choose a vote for the next questions."""
    page.click("[aria-label='How to answer'][aria-haspopup]")
    page.select_option("[name=strategy]", "vote")
    if samples != 8:
        page.check(f"[name=samples][value='{samples}']", force=True)
    page.keyboard.press("Escape")


def until(page: Page, expression: str) -> None:
    """Wait until a JavaScript expression is true. The policy forbids Playwright's way, evaluating in the page."""
    end = time.monotonic() + 10
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"{expression} did not become true"
        page.wait_for_timeout(30)


def watch_shifts(page: Page) -> None:
    """Sum up the layout shifts from now on as browsers do: without those that follow a key or a click at once."""
    page.evaluate(
        """() => {
            window.shifted = 0;
            const add = (entry) => { if (!entry.hadRecentInput) shifted += entry.value; };
            new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({type: 'layout-shift'});
        }"""
    )


def shifted(page: Page) -> float:
    page.wait_for_timeout(200)
    return float(page.evaluate("shifted"))
