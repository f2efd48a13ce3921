"""A vote in a browser: lanes, tally, samples that are stopped, the verdict."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect

from tests.page.conftest import ask, ended, until, vote
from tests.page.mock_server import MockServer

QUESTION = "What is 347 + 586?"


def lanes(page: Page) -> list[tuple[str, str]]:
    """The state of each lane, and its result."""
    found = page.locator(".answer.last .lane").all()
    return [(each.get_attribute("data-state") or "", each.locator(".lane-result").inner_text()) for each in found]


def test_lanes_grow_while_samples_are_drawn_and_each_opens(page: Page, server: MockServer) -> None:
    server.state.pace = 0.03
    vote(page)
    ask(page, QUESTION, wait=False)
    page.wait_for_selector(".lane[data-state=drawing] .lane-text:has-text('The ones')")
    assert page.locator(".lane").count() == 8
    assert page.inner_text(".vote-title") == "Vote of 8"
    page.click(".lane button >> nth=2")
    dialog = page.locator("dialog")
    expect(dialog.locator("h2")).to_have_text("Sample 3")
    expect(dialog).to_contain_text("A check says yes.", timeout=20_000)  # the sample grows in its dialog
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    ended(page)


def test_a_decided_vote_has_tally_rule_and_stopped_samples_with_their_reason(page: Page, server: MockServer) -> None:
    vote(page)
    ask(page, QUESTION)
    stopped = ("stopped", "23")
    assert lanes(page) == [
        ("ended", "933"), ("ended", "833"), ("ended", "933"), ("ended", "933"),
        stopped, ("ended", "933"), stopped, ("ended", "no answer"),
    ]  # fmt: skip
    assert page.locator(".lane >> nth=4").locator(".lane-text").inner_text() == "Stopped: the leader cannot be caught"
    tally = [each.inner_text().split("\n") for each in page.locator(".tally li").all()]
    assert tally == [["933", "4"], ["833", "1"], ["no answer", "1"]]
    expect(page.locator(".tally .leads .tally-answer")).to_have_text("933")
    assert page.inner_text(".vote-facts") == "4 of 6 for 933"
    rule = "Majority of 6, the leader cannot be caught, 4 against 1 · 158 tokens, about 61 saved"
    assert page.inner_text(".vote-rule") == rule
    expect(page.locator(".lane.chosen .lane-number")).to_have_text("1")
    assert page.locator(".answer-text .katex").count() == 1
    assert server.state.requests[-1]["dsr"] == {"strategy": "vote", "events": True}


def test_samples_with_the_same_answer_have_the_same_colour_as_their_bar(page: Page) -> None:
    vote(page)
    ask(page, QUESTION)
    colours = [each.get_attribute("data-colour") for each in page.locator(".lane").all()]
    assert colours == ["0", "1", "0", "0", "none", "0", "none", "none"]
    assert [each.get_attribute("data-colour") for each in page.locator(".tally li").all()] == ["0", "1", "none"]


def test_a_reload_keeps_the_vote_with_every_sample(page: Page) -> None:
    vote(page)
    ask(page, QUESTION)
    before = lanes(page)
    until(page, "location.hash === '#/c/1'")
    page.wait_for_timeout(100)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text(".vote-facts") == "4 of 6 for 933"
    page.click(".vote summary")
    assert lanes(page) == before
    page.click(".lane button >> nth=1")
    assert "I forget the carry here." in page.inner_text("dialog")


def test_a_vote_that_is_stopped_says_so_and_has_no_verdict(page: Page, server: MockServer) -> None:
    server.state.pace = 0.03
    vote(page)
    ask(page, QUESTION, wait=False)
    page.wait_for_selector(".lane[data-state=drawing]")
    page.click("[aria-label=Stop]")
    ended(page)
    assert page.inner_text(".vote-facts") == "no verdict"
    assert "Stopped: you stopped it" in page.inner_text(".lane >> nth=0")
    expect(page.locator(".ending button")).to_have_text("Try again")


def test_the_number_of_samples_is_asked_for(page: Page, server: MockServer) -> None:
    vote(page, 4)
    ask(page, QUESTION)
    assert server.state.requests[-1]["dsr"] == {"strategy": "vote", "set": {"n": "4"}, "events": True}
    assert page.locator(".lane").count() == 4


def test_v_switches_between_a_vote_and_one_answer(page: Page) -> None:
    page.focus(".wordmark")
    page.keyboard.press("v")
    expect(page.locator(".chips")).to_have_text("Vote of 8")
    page.keyboard.press("v")
    expect(page.locator(".chips")).to_be_hidden()
