"""Conversations and models in a browser: list, search, rename, delete, export, import; load, unload, download."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page, expect

from tests.page.conftest import ask, until
from tests.page.mock_server import MockServer


def titles(page: Page) -> list[str]:
    return [each.inner_text() for each in page.locator(".conversation a").all()]


def act(page: Page, title: str, action: str) -> None:
    page.locator(".conversation", has_text=title).hover()
    page.click(f"[aria-label='Actions: {title}']")
    page.click(f"[role=menuitem]:has-text('{action}')")


@pytest.fixture
def two(page: Page) -> Page:
    """A page with two conversations, of which the second is open."""
    ask(page, "What is 347 + 586?")
    until(page, "location.hash === '#/c/1'")
    page.keyboard.press("Control+Shift+O")
    until(page, "location.hash === '#/'")
    ask(page, "Explain why the harmonic series diverges.")
    until(page, "location.hash === '#/c/2'")
    page.wait_for_selector(".conversation >> nth=1")
    return page


def test_conversations_are_listed_latest_first_and_opened(two: Page) -> None:
    assert titles(two) == ["Explain why the harmonic series diverges.", "What is 347 + 586?"]
    expect(two.locator(".conversation a").first).to_have_attribute("aria-current", "page")
    two.click(".conversation a >> nth=1")
    expect(two.locator(".bubble")).to_have_text("What is 347 + 586?")
    expect(two.locator(".conversation a").nth(1)).to_have_attribute("aria-current", "page")
    assert two.title() == "What is 347 + 586? · dsr"


def test_search_finds_words_of_questions_and_answers(two: Page) -> None:
    two.fill("[type=search]", "unit FRACTIONS")
    expect(two.locator(".conversation")).to_have_count(1)
    assert titles(two) == ["Explain why the harmonic series diverges."]
    two.fill("[type=search]", "nowhere")
    expect(two.locator(".history [role=status]")).to_have_text("No conversation has this text.")


def test_a_conversation_gets_another_title(two: Page, server: MockServer) -> None:
    act(two, "Explain why the harmonic series diverges.", "Rename")
    two.fill("dialog input", "Harmonics")
    two.keyboard.press("Enter")
    expect(two.locator(".conversation a").first).to_have_text("Harmonics")
    assert server.state.conversations[2]["title"] == "Harmonics"
    assert two.title() == "Harmonics · dsr"


def test_delete_asks_first_and_leaves_the_conversation(two: Page, server: MockServer) -> None:
    act(two, "Explain why the harmonic series diverges.", "Delete")
    two.click("dialog >> text=Cancel")
    assert 2 in server.state.conversations
    act(two, "Explain why the harmonic series diverges.", "Delete")
    two.click("dialog button:has-text('Delete')")
    until(two, "location.hash === '#/'")
    expect(two.locator(".conversation")).to_have_count(1)
    assert [*server.state.conversations] == [1]


def test_an_exported_conversation_can_be_imported(two: Page, server: MockServer, tmp_path: Path) -> None:
    with two.expect_download() as markdown:
        act(two, "What is 347 + 586?", "Export as Markdown")
    assert markdown.value.suggested_filename == "What-is-347-586.md"
    with two.expect_download() as exported:
        act(two, "What is 347 + 586?", "Export as JSON")
    file = tmp_path / "exported.json"
    exported.value.save_as(file)
    assert json.loads(file.read_text())["messages"][0]["content"] == "What is 347 + 586?"
    two.set_input_files(".history input[type=file]", file)
    until(two, "location.hash === '#/c/3'")
    expect(two.locator(".bubble")).to_have_text("What is 347 + 586?")


def test_a_file_that_is_no_export_is_refused(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "broken.json"
    file.write_text("{")
    page.set_input_files(".history input[type=file]", file)
    expect(page.locator("dialog")).to_contain_text("broken.json is not JSON.")


def test_models_are_loaded_and_unloaded_and_memory_follows(page: Page, server: MockServer) -> None:
    page.click(".side-link:has-text('Models')")
    expect(page.locator(".memory .facts")).to_have_text(
        "Models take 15 MiB, everything else 7.0 GiB. 9.0 GiB of 16 GiB are free."
    )
    page.click("[aria-label='Load deepseek-r1:7b Q4_K_M']")
    page.wait_for_selector("[aria-label='Unload deepseek-r1:7b Q4_K_M']")
    expect(page.locator(".memory .facts")).to_contain_text("Models take 5.3 GiB")
    page.click("[aria-label='Unload deepseek-r1:7b Q4_K_M']")
    page.wait_for_selector("[aria-label='Load deepseek-r1:7b Q4_K_M']")
    assert server.state.models[1]["state"] == "closed"


def test_a_model_says_what_it_needs_and_how_fast_it_is(page: Page) -> None:
    page.click(".side-link:has-text('Models')")
    row = page.locator(".model", has_text="deepseek-r1:7b")
    expect(row.locator(".facts")).to_have_text("7.6B · Q4_K_M · 4.4 GiB · needs 5.2 GiB of memory · about 9.2 tokens/s")
    expect(row.locator(".tag")).to_have_text("Thinks")


def test_a_download_asks_with_its_size_and_shows_its_progress(page: Page, server: MockServer) -> None:
    page.click(".side-link:has-text('Models')")
    page.click("[aria-label='Download qwen3:4b']")
    expect(page.locator("dialog")).to_contain_text("dsr downloads 2.7 GiB from the hub (org/repo-GGUF, Q4_K_M).")
    page.click("dialog >> text=Cancel")
    assert server.state.pulled == []
    page.click("[aria-label='Download qwen3:4b']")
    page.click("dialog button:has-text('Download')")
    page.wait_for_selector("progress")
    page.wait_for_selector("[aria-label='Chat with qwen3:4b Q4_K_M']")
    expect(page.locator("[aria-label='Download qwen3:4b']")).to_have_count(0)
    page.click("[aria-label='Chat with qwen3:4b Q4_K_M']")
    assert page.inner_text(".model-name") == "qwen3:4b"


def test_a_download_can_be_stopped(page: Page, server: MockServer) -> None:
    server.state.pace = 0.03
    page.click(".side-link:has-text('Models')")
    page.click("[aria-label='Download qwen3:8b']")
    page.click("dialog button:has-text('Download')")
    page.click("[aria-label='Stop the download of qwen3:8b']")
    page.wait_for_selector("[aria-label='Download qwen3:8b']")
    page.wait_for_timeout(600)
    assert (server.state.pulled, server.state.left) == ([], 1)


def test_the_chosen_model_answers_and_is_remembered(page: Page, server: MockServer) -> None:
    page.click(".model-button")
    page.click("[role=menuitemradio]:has-text('smollm2:135m')")
    ask(page, "What is 347 + 586?")
    assert server.state.requests[-1]["model"] == "smollm2:135m"
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.inner_text(".model-name") == "smollm2:135m"


def test_the_model_that_comes_with_dsr_suggests_questions_that_it_solves(page: Page) -> None:
    expect(page.locator(".empty h1")).to_have_text("Ask nano")
    assert page.locator(".examples button").all_inner_texts() == [
        "What is 347 + 586?",
        "What comes next: 5, 10, 20, 40, ?",
        "Mia is taller than Ann. Ann is taller than Eve. Who is the shortest?",
    ]
