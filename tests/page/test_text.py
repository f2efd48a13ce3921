"""Markdown and mathematics of a model as elements: safe, the same streamed as at once, without marks that jump."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api")
from playwright.sync_api import Page

from tests.page.answers import HOSTILE, MATHS, THOUGHT
from tests.page.conftest import Told, ask

STREAMED = """async ([text, step]) => {
    const {StreamingMarkdown} = await import('/page/text/streaming.js');
    const [pieces, whole] = [document.createElement('div'), document.createElement('div')];
    const streaming = new StreamingMarkdown(pieces);
    for (let end = step; end < text.length; end += step) streaming.show(text.slice(0, end));
    streaming.show(text, true);
    new StreamingMarkdown(whole).show(text, true);
    return [pieces.innerHTML, whole.innerHTML];
}"""
SETTLED = "async (text) => (await import('/page/text/unfinished.js')).settled(text)"
DRAWN = """async (text) => {
    const {StreamingMarkdown} = await import('/page/text/streaming.js');
    const element = document.createElement('div');
    new StreamingMarkdown(element).show(text, true);
    return element.innerHTML;
}"""


FORMULAS = """async (text) => {
    const {StreamingMarkdown} = await import('/page/text/streaming.js');
    const element = document.createElement('div');
    new StreamingMarkdown(element).show(text, true);
    return [...element.querySelectorAll('.math')].map((each) => each.dataset.tex);
}"""


@pytest.mark.parametrize("step", [1, 3, 7, 50])
@pytest.mark.parametrize(
    "text", [MATHS, THOUGHT, HOSTILE, "- a\n\n  - b\n- c\n\n1. d\n2) e\n", "a\n===\n\n    code\n\n***\nb"]
)
def test_a_streamed_text_ends_as_the_same_text_at_once(page: Page, text: str, step: int) -> None:
    streamed, whole = page.evaluate(STREAMED, [text, step])
    assert streamed == whole


@pytest.mark.parametrize(
    ("unfinished", "shown"),
    [
        ("The sum is **five", "The sum is **five**"),
        ("The sum is **", "The sum is "),
        ("The sum is *five", "The sum is *five*"),
        ("Call `print", "Call `print`"),
        ("Call `", "Call "),
        ("It is $x + ", "It is "),
        ("It is $x$ and ", "It is $x$ and "),
        ("It costs $5 or ", "It costs "),  # a closing dollar may still come
        ("It is \\(x +", "It is "),
        ("It is \\[x +\n y", "It is "),
        ("So \\boxed{9", "So "),
        ("So \\boxed{9}", "So \\boxed{9}"),
        ("So \\bo", "So "),
        ("Read [the page](https://exa", "Read the page"),
        ("A line\n-", "A line"),
        ("A line\n1.", "A line"),
        ("A line\n```", "A line"),
        ("A line\n##", "A line"),
        ("| a | b |", ""),
        ("| a | b |\n|--", ""),
        ("| a | b |\n|---|---|\n| 1", "| a | b |\n|---|---|\n| 1"),
        ("2 * 3 = 6 and 4", "2 * 3 = 6 and 4"),
    ],
)
def test_what_is_not_finished_yet_is_shown_as_it_will_look(page: Page, unfinished: str, shown: str) -> None:
    assert page.evaluate(SETTLED, unfinished) == shown


@pytest.mark.parametrize(
    ("text", "tex"),
    [
        ("$x^2$", ["x^2"]),
        ("It costs $5, and two cost $10.", []),
        ("\\(a\\) and \\[b\\]", ["a", "b"]),
        ("$$\nc\n$$", ["c"]),
        ("- item\n  $$d$$", ["d"]),
        ("so \\boxed{\\frac{1}{2}}.", ["\\boxed{\\frac{1}{2}}"]),
        ("`$x$` stays code", []),
        ("```\n$x$\n```", []),
    ],
)
def test_formulas_are_found_where_models_write_them(page: Page, text: str, tex: list[str]) -> None:
    assert page.evaluate(FORMULAS, text) == tex


def test_a_formula_that_katex_refuses_stays_as_its_source(page: Page) -> None:
    assert "<code>\\frac{1</code>" in page.evaluate(DRAWN, "$\\frac{1$")


def test_text_of_a_model_is_content_and_never_acts(page: Page, told: Told) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    ask(page, "Please be hostile")
    title = page.title()
    assert "owned" not in title
    body = page.locator(".answer-text")
    assert body.locator("img, script, style, iframe, [style*=fixed]").count() == 0
    links = {each.inner_text(): each.get_attribute("href") for each in body.locator("a").all()}
    assert links == {
        "image: a picture": "https://example.com/track.png",
        "this server": None,
        "a good link": "https://example.com/",
        "https://example.com": "https://example.com",  # the address in the iframe, which is text
    }
    assert {each.get_attribute("rel") for each in body.locator("a").all()} == {"noopener noreferrer nofollow"}
    assert not any("example.com" in each for each in requests)
    assert page.locator(".answer-text [href^=javascript]").count() == 0
    assert told.errors == []


def test_code_is_coloured_and_copied_as_it_is(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    ask(page, "Explain why the harmonic series diverges.")
    assert page.locator(".code .hljs-keyword").count() >= 4
    page.click("[data-copy-code]")
    page.wait_for_selector("[data-copy-code]:has-text('Copied')")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("def harmonic(terms: int) -> float:\n    # The small terms")


def test_events_of_dsr_are_read_from_comments_and_pieces_may_end_anywhere(page: Page) -> None:
    found = page.evaluate(
        """async () => {
            const {serverEvents} = await import('/page/server/sse.js');
            const text = ': dsr {"a":1}\\r\\n\\r\\ndata: é1\\ndata: 2\\n\\n: ping\\n\\n'
                + 'event: x\\rdata:3\\r\\rdata: last';
            const bytes = new TextEncoder().encode(text);
            const found = [];
            for (const step of [1, 2, 5, 1000]) {
                const body = new ReadableStream({start(c) {
                    for (let at = 0; at < bytes.length; at += step) c.enqueue(bytes.slice(at, at + step));
                    c.close();
                }});
                const told = [];
                for await (const {event, data} of serverEvents(body)) told.push(event + '=' + data);
                found.push(told.join('|'));
            }
            return found;
        }"""
    )
    assert set(found) == {'dsr={"a":1}|message=é1\n2|x=3|message=last'}


LAYOUT = """async (text) => {
    const {splitFiles, withFiles} = await import('/page/chat/files.js');
    const {files, question} = splitFiles(text);
    return [files.map((each) => [each.name, each.content]), question, withFiles(files, question)];
}"""


def test_files_in_a_question_are_found_as_dsr_chat_finds_them(page: Page) -> None:
    from dsr.chat.given_files import given_files
    from runtime.engine.template import file_layout

    nested = file_layout("inner.txt", "i", "left over")
    texts = [
        file_layout("a.txt", "one\ntwo", file_layout("b c.txt", "", "What?")),
        file_layout("outer.txt", nested, "And?"),
        "no files",
        "[file name]: broken",
    ]
    for text in texts:
        files, question, again = page.evaluate(LAYOUT, text)
        assert again == text
        assert [name for name, _ in files] == [each.name for each in given_files(text)]
        assert question == text[sum(len(each.text) for each in given_files(text)) :]
