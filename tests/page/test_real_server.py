"""The page with the real server and the embedded model: what only they can show together."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect

from tests.dsr.serve.conftest import Live, live  # noqa: F401
from tests.page.conftest import Told, ask, ended, show, until, vote


@pytest.fixture
def real(browser: Browser, live: Live, told: Told) -> Page:  # noqa: F811
    context = browser.new_context()
    page = context.new_page()
    told.watch(page)
    show(page, f"{live.url}/")
    yield page
    context.close()
    assert told.errors == []


def test_nano_thinks_answers_and_votes_and_everything_is_kept(real: Page) -> None:
    ask(real, "What is 347 + 586?")
    assert real.inner_text(".thought-label").startswith("Thought")
    assert real.locator(".answer-text .katex").count() == 1
    until(real, "/^#\\/c\\/\\d+$/.test(location.hash)")
    vote(real)
    ask(real, "What is 12 + 15?")
    assert real.locator(".answer.last .lane").count() == 8
    assert real.locator(".answer.last .lane[data-state=ended]").count() >= 1
    assert " for " in real.inner_text(".answer.last .vote-facts")
    assert real.inner_text(".answer.last .vote-rule") != ""
    real.wait_for_timeout(300)
    real.reload()
    real.wait_for_selector("html[data-ready]")
    assert [each.inner_text() for each in real.locator(".bubble").all()] == ["What is 347 + 586?", "What is 12 + 15?"]
    assert real.locator(".answer.last .lane").count() == 8


def test_an_answer_that_is_cut_goes_on(real: Page) -> None:
    real.click("[aria-label='How to answer'][aria-haspopup]")
    real.click("summary:has-text('Sampling')")
    real.fill("[name=maxTokens]", "20")
    real.fill("[name=temperature]", "0")
    real.keyboard.press("Escape")
    ask(real, "What is 347 + 586?")
    expect(real.locator(".ending p")).to_have_text("The answer is cut: it reached the token limit.")
    real.click("[aria-label='Remove: Maximum tokens 20']")
    real.click("text=Continue")
    expect(real.locator(".ending")).to_be_hidden()
    ended(real)
    assert real.locator(".answer-text .katex").count() == 1
    assert real.locator(".answer").count() == 1


def test_models_tell_what_the_machine_can_run(real: Page) -> None:
    real.evaluate("location.hash = '#/models'")
    expect(real.locator(".memory .facts")).to_contain_text("are free.")
    real.wait_for_selector("[aria-label='Chat with nano Q8_0']")
