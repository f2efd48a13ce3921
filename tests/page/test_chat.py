"""Questions and answers in a browser, against made-up answers."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Browser, Page, expect

from tests.page.answers import SUM
from tests.page.conftest import Told, ask, ended, opened, show, until
from tests.page.mock_server import MockServer


def answer(page: Page) -> str:
    return page.inner_text(".answer.last .answer-text")


def test_an_answer_has_its_thought_folded_and_timed_and_its_mathematics_drawn(page: Page) -> None:
    ask(page, "What is 347 + 586?")
    expect(page.locator(".answer.last .thought")).not_to_have_attribute("open", "")
    assert page.inner_text(".thought-label").startswith("Thought for ")
    assert page.locator(".answer.last .answer-text .katex").count() == 1
    assert page.input_value("#message") == ""
    page.click(".thought summary")
    expect(page.locator(".thought-body")).to_contain_text("The sum has two parts")
    assert page.locator(".thought-body .katex").count() == 4


def test_the_model_gets_the_question_with_the_conversation_before_it(page: Page, server: MockServer) -> None:
    ask(page, "First?")
    ask(page, "Second, with history?")
    assert server.state.requests[-1]["model"] == "nano"
    roles = [(each["role"], each["content"]) for each in server.state.requests[-1]["messages"]]
    assert roles == [("user", "First?"), ("assistant", SUM), ("user", "Second, with history?")]
    assert answer(page) == "You asked First?, Second, with history?."


def test_stop_keeps_the_text_so_far_and_tells_the_server(page: Page, server: MockServer) -> None:
    server.state.pace = 0.02
    ask(page, "A long answer, please", wait=False)
    page.wait_for_selector(".answer.live .answer-text p:has-text('in plain words')")
    page.keyboard.press("Escape")
    ended(page)
    assert answer(page).startswith("Paragraph 1 says")
    expect(page.locator(".ending p")).to_have_text("You stopped the answer.")
    expect(page.locator("[aria-label=Send]")).to_be_visible()
    page.wait_for_timeout(200)
    assert server.state.left == 1


def test_an_edited_question_begins_a_branch_and_both_stay(page: Page, server: MockServer) -> None:
    ask(page, "First history?")
    ask(page, "Second history?")
    page.locator(".question").first.hover()
    page.locator("[aria-label='Edit question']").first.click()
    page.keyboard.press("Control+a")
    page.keyboard.type("Other history?")
    page.keyboard.press("Enter")
    ended(page)
    assert answer(page) == "You asked Other history?."
    assert page.locator(".question").count() == 1
    page.click("[aria-label='Previous version of the question']")
    assert [each.inner_text() for each in page.locator(".bubble").all()] == ["First history?", "Second history?"]
    page.wait_for_timeout(100)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text(".branches") == "1 / 2"
    page.click("[aria-label='Next version of the question']")
    assert answer(page) == "You asked Other history?."


def test_regenerate_draws_another_answer_and_keeps_the_first(page: Page, server: MockServer) -> None:
    ask(page, "What is 347 + 586?")
    page.click("[aria-label='Regenerate answer']")
    ended(page)
    assert page.inner_text(".answer .branches") == "2 / 2"
    assert len(server.state.requests) == 2
    assert server.state.requests[0]["messages"] == server.state.requests[1]["messages"]


def test_an_answer_that_is_cut_can_be_continued(page: Page, server: MockServer) -> None:
    ask(page, "Cut the sum: what is cut here?")
    expect(page.locator(".ending p")).to_have_text("The answer is cut: it reached the token limit.")
    before = answer(page)
    page.click("text=Continue")
    expect(page.locator(".ending")).to_be_hidden()
    ended(page)
    last = server.state.requests[-1]
    assert last["dsr"]["continue"] is True
    assert last["messages"][-1]["role"] == "assistant" and last["messages"][-1]["reasoning_content"] != ""
    assert answer(page).startswith(before.rstrip(".")[:20])
    assert page.locator(".answer").count() == 1
    assert page.locator(".answer .katex").count() == 1


def test_a_reload_restores_the_conversation(page: Page, server: MockServer) -> None:
    ask(page, "What is 347 + 586?")
    until(page, "location.hash === '#/c/1'")
    text = answer(page)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert answer(page) == text
    assert page.inner_text(".bubble") == "What is 347 + 586?"
    assert page.inner_text(".thought-label").startswith("Thought for ")


def test_a_reload_in_the_middle_of_an_answer_keeps_its_text(page: Page, server: MockServer) -> None:
    server.state.pace = 0.03
    ask(page, "A long answer, please", wait=False)
    page.wait_for_selector(".answer.live .answer-text p:nth-child(2)", timeout=20_000)
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert answer(page).startswith("Paragraph 1 says")
    expect(page.locator(".ending button")).to_have_text("Continue")


def test_a_server_that_goes_away_in_the_middle_is_waited_for_and_the_answer_goes_on(
    page: Page, server: MockServer, told: Told
) -> None:
    server.state.pace = 0.02
    ask(page, "A long answer, please", wait=False)
    page.wait_for_selector(".answer.live .answer-text p:has-text('in plain words')")
    server.stop()
    expect(page.locator(".connection")).to_have_text("Server away, trying again")
    expect(page.locator(".ending p")).to_have_text("The connection to the server was lost. The text so far is kept.")
    expect(page.locator(".ending button")).to_be_disabled()
    before = answer(page)
    assert before.startswith("Paragraph 1 says")
    server.state.pace = 0.0
    server.start()
    expect(page.locator(".connection")).to_have_text("Connected again")
    page.click(".ending button:has-text('Continue')")
    expect(page.locator(".ending")).to_be_hidden()
    ended(page)
    assert answer(page).startswith(before[:40])
    assert answer(page).count("Paragraph 39 says") == 1
    assert answer(page).count("Paragraph 1 says") == 1
    page.wait_for_timeout(300)
    assert server.state.conversations[1]["messages"][-1]["content"].count("Paragraph 39 says") == 1
    told.errors.clear()  # the browser itself notes requests that failed


def test_a_refused_question_says_why(page: Page, told: Told) -> None:
    ask(page, "Please refuse this")
    assert "the context holds 4,096" in page.inner_text(".ending p")
    expect(page.locator(".ending button")).to_have_text("Try again")
    assert ["400" in each for each in told.errors] == [True]
    told.errors.clear()


def test_an_answer_that_fails_in_the_middle_keeps_its_text_and_says_why(page: Page) -> None:
    ask(page, "This will fail in a long answer")
    assert answer(page).startswith("Paragraph 1")
    assert page.inner_text(".ending p") == "the engine process ended; ask again"


def test_a_server_with_a_key_asks_for_it_once_and_again_if_it_is_wrong(
    browser: Browser, server: MockServer, told: Told
) -> None:
    server.state.key = "right"
    context = browser.new_context()
    page = context.new_page()
    page.goto(server.url)
    page.fill("dialog input", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog:has-text('did not accept')")
    page.fill("dialog input", "right")
    page.keyboard.press("Enter")
    page.wait_for_selector("html[data-ready]")
    ask(page, "What is 347 + 586?")
    assert page.locator(".answer .katex").count() == 1
    assert page.evaluate("[localStorage.getItem('dsr.key'), sessionStorage.getItem('dsr.key')]") == [None, "right"]
    context.close()


def test_dropped_files_stand_before_the_question_as_with_dash_f(page: Page, server: MockServer) -> None:
    page.set_input_files(
        "form input[type=file]", [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"a\r\nb\n"}]
    )
    page.wait_for_selector(".composer .file-chip")
    ask(page, "What is in it?")
    sent = server.state.requests[-1]["messages"][0]["content"]
    assert sent == "[file name]: notes.txt\n[file content begin]\na\nb\n[file content end]\nWhat is in it?"
    assert page.inner_text(".bubble") == "What is in it?"
    assert page.inner_text(".question .file-name") == "notes.txt"
    page.click(".question .file-chip")
    assert page.inner_text("dialog pre") == "a\nb"


def test_a_file_that_is_no_text_is_refused(page: Page) -> None:
    page.set_input_files(
        "form input[type=file]", [{"name": "x.bin", "mimeType": "text/plain", "buffer": b"\xff\x00\x80"}]
    )
    expect(page.locator(".composer .problem")).to_have_text("x.bin is not a text. Give a text file in UTF-8.")


def test_options_reach_the_request_and_defaults_send_nothing(page: Page, server: MockServer) -> None:
    ask(page, "One?")
    assert server.state.requests[-1].keys() == {"model", "messages", "stream", "stream_options", "dsr"}
    assert server.state.requests[-1]["dsr"] == {"events": True}
    page.click("[aria-label='How to answer'][aria-haspopup]")
    page.fill("[name=budget]", "200")
    page.click("summary:has-text('Sampling')")
    page.fill("[name=temperature]", "0.7")
    page.fill("[name=maxTokens]", "500")
    page.keyboard.press("Escape")
    assert [each.inner_text() for each in page.locator(".chips li").all()] == [
        "Budget 200 tokens", "Temperature 0.7", "Maximum tokens 500",
    ]  # fmt: skip
    ask(page, "Two?")
    sent = server.state.requests[-1]
    assert (sent["temperature"], sent["max_completion_tokens"], sent["dsr"]["think_budget"]) == (0.7, 500, 200)
    page.click("[aria-label='Remove: Temperature 0.7']")
    ask(page, "Three?")
    assert "temperature" not in server.state.requests[-1]


def test_thinking_off_is_asked_for_as_openai_does(page: Page, server: MockServer) -> None:
    page.click("[aria-label='How to answer'][aria-haspopup]")
    page.check("[name=thinking][value=off]", force=True)
    page.keyboard.press("Escape")
    ask(page, "Quick?")
    assert server.state.requests[-1]["reasoning_effort"] == "none"
    expect(page.locator(".thought")).to_be_hidden()


def test_a_model_that_is_loaded_shows_how_far_it_is(page: Page, server: MockServer) -> None:
    ask(page, "What do you load first?", wait=False)
    page.wait_for_selector(".waiting:has-text('Loading nano.gguf')")
    ended(page)


def test_another_tab_shows_the_same_conversation(browser: Browser, page: Page, server: MockServer, told: Told) -> None:
    ask(page, "What is 347 + 586?")
    until(page, "location.hash === '#/c/1'")
    with opened(browser, server, told) as other:
        show(other, f"{server.url}#/c/1")
        other.wait_for_selector(".answer")
        assert other.inner_text(".bubble") == "What is 347 + 586?"


def test_a_system_prompt_stands_before_the_conversation_and_is_kept(page: Page, server: MockServer) -> None:
    page.click("[aria-label='How to answer'][aria-haspopup]")
    page.click("summary:has-text('System prompt')")
    page.fill("[name=system]", "Be brief.")
    page.keyboard.press("Escape")
    ask(page, "One?")
    assert server.state.requests[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    until(page, "location.hash === '#/c/1'")
    assert server.state.conversations[1]["system"] == "Be brief."


def test_a_conversation_that_cannot_be_kept_says_so(page: Page, server: MockServer, told: Told) -> None:
    server.state.full = True
    ask(page, "What is 347 + 586?")
    expect(page.locator(".page-problem")).to_contain_text("not kept on the server: the disk is full")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text(".bubble") == "What is 347 + 586?"
    told.errors.clear()


def test_a_choice_that_the_model_does_not_know_is_not_sent(page: Page, server: MockServer) -> None:
    page.click(".model-button")
    page.click("[role=menuitemradio]:has-text('gpt-oss:20b')")
    page.click("[aria-label='How to answer'][aria-haspopup]")
    page.check("[name=effort][value=high]", force=True)
    page.keyboard.press("Escape")
    ask(page, "One?")
    assert server.state.requests[-1]["reasoning_effort"] == "high"
    page.click(".model-button")
    page.click("[role=menuitemradio]:has-text('smollm2:135m')")
    expect(page.locator(".chips")).to_be_hidden()
    ask(page, "Two?")
    assert "reasoning_effort" not in server.state.requests[-1]
