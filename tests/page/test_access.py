"""The page for everybody: keyboard, screen readers, narrow windows, dark colours, calm motion."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect

from tests.page.conftest import Told, ask, ended, opened, shifted, until, vote, watch_shifts
from tests.page.mock_server import MockServer

AXE = (Path(__file__).parent / "vendored" / "axe.min.js").read_text(encoding="utf-8")
SCROLL = "document.querySelector('.view')"
FAR = f"(({{scrollHeight, clientHeight, scrollTop}}) => scrollHeight - clientHeight - scrollTop)({SCROLL})"
WIDE = "(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(document.querySelector('.view'))"
WIDTHS = (320, 768, 1280)


def findings(page: Page) -> list[str]:
    """What axe finds serious or critical: the rule and the first place."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{each['id']}: {each['nodes'][0]['target']} {each['nodes'][0].get('failureSummary', '')}"
        for each in found["violations"]
        if each["impact"] in ("serious", "critical")
    ]


def overflows(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_serious_on_any_view(
    browser: Browser, server: MockServer, told: Told, width: int, scheme: str
) -> None:
    with opened(browser, server, told, width=width, color_scheme=scheme, reduced_motion="reduce") as page:
        assert findings(page) == []
        ask(page, "Explain why the harmonic series diverges.")
        page.click(".thought summary")
        assert findings(page) == []
        vote(page)
        ask(page, "What is 347 + 586?")
        page.locator(".vote-rule").last.scroll_into_view_if_needed()
        assert findings(page) == []
        page.locator(".lane button").first.click()
        assert findings(page) == []
        page.keyboard.press("Escape")
        page.click("[aria-label='How to answer'][aria-haspopup]")
        page.click("summary:has-text('Sampling')")
        assert findings(page) == []
        page.keyboard.press("Escape")
        page.evaluate("location.hash = '#/models'")
        page.wait_for_selector("[aria-label='Models to download'] li")
        assert findings(page) == []
        assert overflows(page) <= 0
        if width < 860:
            page.click(".menu-toggle")
            assert findings(page) == []
    assert told.errors == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window(browser: Browser, server: MockServer, told: Told, width: int) -> None:
    with opened(browser, server, told, width=width) as page:
        ask(page, "Explain why the harmonic series diverges.")
        assert overflows(page) <= 0
        assert page.evaluate(WIDE) == 0


@pytest.mark.parametrize("question", ["Explain why the harmonic series diverges.", "A long answer, please"])
def test_a_streaming_answer_does_not_shift_the_page(page: Page, server: MockServer, question: str) -> None:
    server.state.pace = 0.006
    watch_shifts(page)
    ask(page, question)
    assert shifted(page) < 0.1


def test_a_vote_does_not_shift_the_page(page: Page, server: MockServer) -> None:
    server.state.pace = 0.02
    vote(page)
    watch_shifts(page)
    ask(page, "What is 347 + 586?")
    assert shifted(page) < 0.1


def test_the_end_stays_in_view_unless_the_reader_scrolls_away(page: Page, server: MockServer) -> None:
    server.state.pace = 0.01
    ask(page, "A long answer, please", wait=False)
    page.wait_for_selector(".answer-text p:nth-child(18)", timeout=20_000)
    assert page.evaluate(FAR) < 40
    page.mouse.move(700, 300)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(100)
    top = page.evaluate("document.querySelector('.view').scrollTop")
    page.wait_for_selector(".answer-text p:nth-child(24)", timeout=20_000)
    assert page.evaluate("document.querySelector('.view').scrollTop") == top
    page.click("[aria-label='Go to the end']")
    page.wait_for_timeout(100)
    assert page.evaluate(FAR) < 40
    page.keyboard.press("Escape")
    ended(page)


def test_finished_blocks_are_not_drawn_again(page: Page, server: MockServer) -> None:
    server.state.pace = 0.01
    ask(page, "A long answer, please", wait=False)
    page.wait_for_selector(".answer-text p:nth-child(3)", timeout=20_000)
    page.evaluate("document.querySelector('.answer-text p').marked = true")
    server.state.pace = 0.0
    ended(page)
    assert page.evaluate("document.querySelector('.answer-text p').marked") is True


def reached(page: Page, presses: int = 80) -> set[str]:
    """The names of everything that Tab reaches from the top of the page."""
    page.evaluate("document.activeElement?.blur()")
    names = set()
    for _ in range(presses):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "(() => { const e = document.activeElement; return e === document.body ? '' :"
            " e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent; })()"
        )
        names.add(name)
    return names


def test_every_control_is_reached_by_the_keyboard(page: Page) -> None:
    ask(page, "Explain why the harmonic series diverges.")
    page.click("[aria-label='Regenerate answer']")
    ended(page)
    controls = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, textarea, select, summary')]"
        ".filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0)"
        ".map((e) => e.getAttribute('aria-label') ?? e.labels?.[0]?.textContent ?? e.textContent)"
    )
    assert set(controls) - reached(page) == set()


def test_a_whole_exchange_needs_no_mouse(page: Page, server: MockServer) -> None:
    page.keyboard.type("What is 347 + 586?")  # the field has the focus at the start
    page.keyboard.press("Enter")
    ended(page)
    page.locator(".answer.last [data-copy]").focus()
    page.keyboard.press("t")
    expect(page.locator(".answer.last .thought")).to_have_attribute("open", "")
    page.keyboard.press("e")
    page.keyboard.press("Control+a")
    page.keyboard.type("And 1 + 1?")
    page.keyboard.press("Enter")
    ended(page)
    assert page.inner_text(".question .branches") == "2 / 2"
    page.locator(".answer.last [data-copy]").focus()
    page.keyboard.press("m")
    until(page, "location.hash === '#/models'")
    page.keyboard.press("n")
    until(page, "location.hash === '#/'")
    expect(page.locator("#message")).to_be_focused()
    page.keyboard.press("Control+k")
    expect(page.locator("input[type=search]")).to_be_focused()


def test_menus_move_by_arrows_and_give_the_focus_back(page: Page) -> None:
    page.focus(".model-button")
    page.keyboard.press("Enter")
    expect(page.locator("[role=menuitemradio][aria-checked=true]")).to_be_focused()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent").startswith("deepseek-r1:7b")
    page.keyboard.press("Enter")
    assert page.inner_text(".model-name") == "deepseek-r1:7b"
    expect(page.locator(".model-button")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator(".model-button")).to_be_focused()


def test_the_question_mark_lists_the_keys_and_they_can_be_switched_off(page: Page) -> None:
    page.focus(".wordmark")
    page.keyboard.press("?")
    expect(page.locator("dialog h2")).to_have_text("Keyboard shortcuts")
    page.uncheck("dialog input[type=checkbox]")
    page.keyboard.press("Escape")
    page.focus(".wordmark")
    page.keyboard.press("v")
    expect(page.locator(".chips")).to_be_hidden()


def test_screen_readers_hear_sentences_and_not_tokens(page: Page, server: MockServer) -> None:
    page.evaluate(
        "window.heard = []; new MutationObserver((list) => { for (const m of list) for (const n of m.addedNodes)"
        " heard.push(n.textContent); }).observe(document.getElementById('announcements'), {childList: true})"
    )
    ask(page, "What is 347 + 586?")
    until(page, "heard.at(-1)?.endsWith('Answer complete.')")
    heard = page.evaluate("heard")
    assert heard[0] == "The model is working."
    assert len(heard) <= 4
    assert "Adding the columns from the right gives 3, 3 and 9." in " ".join(heard)


def test_reduced_motion_has_no_animation(browser: Browser, server: MockServer, told: Told) -> None:
    server.state.pace = 0.03
    with opened(browser, server, told, reduced_motion="reduce") as page:
        ask(page, "A long answer, please", wait=False)
        page.wait_for_selector(".thought.live")
        assert page.evaluate("document.getAnimations().length") == 0
