"""Conversations of `dsr chat --tools` in the page: calls and results are shown folded, sent again and kept."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect

from tests.page.conftest import ask, until
from tests.page.mock_server import MockServer, now

CALL = {"id": "call_1", "name": "time_now", "arguments": '{"city": "Oslo"}'}
QUESTION = {"role": "user", "content": "What time is it in Oslo?", "thinking": "", "stats": None}
CALLS = {
    "role": "assistant",
    "content": "",
    "thinking": "I ask the clock.",
    "stats": {"finish_reason": "tool_calls"},
    "calls": [CALL],
}
RESULT = {
    "role": "tool",
    "content": "14:05 <b>sharp</b>",
    "thinking": "",
    "stats": None,
    "call_id": "call_1",
    "name": "time_now",
}
ANSWER = {"role": "assistant", "content": "It is 14:05.", "thinking": "", "stats": {"finish_reason": "stop"}}


def opened(page: Page, server: MockServer, *turns: dict[str, Any]) -> None:
    kept = {"id": 9, "model": "nano", "system": "", "title": "Oslo", "started": now(), "updated": now()}
    server.state.conversations[9] = {**kept, "messages": list(turns)}
    page.evaluate("location.hash = '#/c/9'")
    page.wait_for_selector(".bubble")


def test_calls_and_results_are_folded_and_shown_as_they_are(page: Page, server: MockServer) -> None:
    opened(page, server, QUESTION, CALLS, RESULT, ANSWER)
    assert page.locator(".tool summary").all_inner_texts() == ["Call of time_now", "Result of time_now"]
    assert page.locator(".tool[open]").count() == 0
    for summary in page.locator(".tool summary").all():
        summary.click()
    assert page.locator(".tool pre").all_inner_texts() == ['{\n  "city": "Oslo"\n}', "14:05 <b>sharp</b>"]
    assert page.locator(".answer [data-regenerate]").count() == 2  # the calls keep their buttons, out of sight
    expect(page.locator(".answer:not(.last) .actions")).to_be_hidden()
    expect(page.locator(".ending:visible")).to_have_count(0)


def test_calls_and_results_are_sent_again_and_kept(page: Page, server: MockServer) -> None:
    opened(page, server, QUESTION, CALLS, RESULT, ANSWER)
    ask(page, "And in Rome?")
    assert server.state.requests[-1]["messages"] == [
        {"role": "user", "content": "What time is it in Oslo?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "time_now", "arguments": '{"city": "Oslo"}'}}
            ],
        },
        {"role": "tool", "content": "14:05 <b>sharp</b>", "tool_call_id": "call_1", "name": "time_now"},
        {"role": "assistant", "content": "It is 14:05."},
        {"role": "user", "content": "And in Rome?"},
    ]
    until(page, "!document.querySelector('.live')")
    page.wait_for_timeout(200)
    kept = server.state.conversations[9]["messages"]
    assert len(kept) == 6
    assert kept[1]["calls"] == [CALL]
    assert (kept[2]["call_id"], kept[2]["name"]) == ("call_1", "time_now")


def test_another_answer_to_a_result_keeps_both(page: Page, server: MockServer) -> None:
    opened(page, server, QUESTION, CALLS, RESULT, ANSWER)
    page.click(".answer.last [data-regenerate]")
    page.wait_for_selector(".answer.last:not(.live) .branches")
    assert [each["role"] for each in server.state.requests[-1]["messages"]] == ["user", "assistant", "tool"]


def test_an_edited_question_keeps_the_calls_of_the_other_branch(page: Page, server: MockServer) -> None:
    opened(page, server, QUESTION, CALLS, RESULT, ANSWER)
    page.click("[data-edit]")
    page.fill(".edit-form textarea", "What time is it in Rome?")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".answer.last:not(.live) .actions [data-copy]", state="attached")
    page.wait_for_timeout(200)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.click("[aria-label^='Previous']")
    assert page.locator(".tool summary").all_inner_texts() == ["Call of time_now", "Result of time_now"]


def test_calls_that_no_answer_followed_are_left_out_of_the_next_question(page: Page, server: MockServer) -> None:
    opened(page, server, QUESTION, CALLS, RESULT)
    ask(page, "Hello?")
    assert server.state.requests[-1]["messages"] == [{"role": "user", "content": "Hello?"}]
