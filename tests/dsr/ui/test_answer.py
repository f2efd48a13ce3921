"""How an answer appears in every mode, at a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from dsr.store.settings import Thinking
from dsr.ui.answer import AnswerDisplay
from dsr.ui.console import Console
from runtime.base.events import Event, Notice, Progress, TextDrawn
from runtime.base.types import Completion, SamplingParams
from tests.dsr.chat.chatting import Screen, screens
from tests.dsr.ui.markdown.emulator import Terminal

DONE = Completion(0, "A thought.", "The answer.", (1, 2, 3, 4), 2, "stop", 0.1, thought_closed_by="model")
MODES = {"human": Console(), "quiet": Console(quiet=True), "json": Console(json_mode=True)}
DIM, END = "\x1b[2m", "\x1b[0m"


def drawn(*texts: tuple[str, str]) -> Generator[Event, None, None]:
    for part, text in texts:
        yield TextDrawn(0, "thinking" if part == "t" else "answer", text)


def reply() -> Generator[Event, None, None]:
    return drawn(("t", "A tho"), ("t", "ught."), ("a", "The ans"), ("a", "wer."))


def shown(pair: tuple[Screen, Screen]) -> tuple[str, str]:
    return pair[0].getvalue(), pair[1].getvalue()


def seen(screen: Screen) -> list[str]:
    """The lines that stand on a terminal after everything that was written."""
    terminal = Terminal(20, 24)
    terminal.write(screen.getvalue())
    return terminal.text


@pytest.mark.parametrize(
    ("mode", "thinking", "out", "err"),
    [
        ("human", "show", "The answer.\n", "A thought.\n"),
        ("human", "hide", "The answer.\n", ""),
        ("human", "summary", "The answer.\n", "thought for 2 tokens\n"),
        ("quiet", "show", "The answer.\n", ""),
        ("quiet", "summary", "The answer.\n", ""),
        ("json", "show", "", ""),
        ("json", "summary", "", ""),
    ],
)
def test_in_a_pipe(monkeypatch: pytest.MonkeyPatch, mode: str, thinking: Thinking, out: str, err: str) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    display = AnswerDisplay(MODES[mode], thinking)
    display.show(reply())
    display.finish(DONE, SamplingParams())
    assert shown(piped) == (out, err)


def test_a_pipe_gets_the_exact_text_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    text = "A \x1b[31mline that is longer than twenty columns\n\n"
    AnswerDisplay(Console(), "show").show(drawn(("a", text)))
    assert shown(piped) == (text, "")


def test_at_a_terminal_the_thought_is_dim_and_an_empty_line_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screens(monkeypatch, out=True, err=True)
    AnswerDisplay(Console(), "show").show(reply())
    assert seen(terminal[0]) == ["The answer.", ""]
    assert terminal[1].getvalue() == f"{DIM}A {END}{DIM}thought.\n{END}\n"


def test_at_a_terminal_lines_break_between_words_and_nothing_drives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screens(monkeypatch, out=True, err=True)
    AnswerDisplay(Console(), "show").show(drawn(("a", "An **answer** \x1b[31mof more than tw"), ("a", "enty columns.")))
    assert seen(terminal[0]) == ["An answer [31mof", "more than twenty", "columns.", ""]


def test_a_raw_answer_at_a_terminal_keeps_the_marks_of_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screens(monkeypatch, out=True, err=True)
    AnswerDisplay(Console(), "show", form="wrapped").show(
        drawn(("a", "An **answer** \x1b[31mof more than tw"), ("a", "enty."))
    )
    assert terminal[0].getvalue() == "An **answer** \n[31mof more than \ntwenty.\n"


@pytest.mark.parametrize("thinking", ["hide", "summary"])
def test_a_hidden_thought_is_counted_at_a_terminal_and_the_count_erased(
    monkeypatch: pytest.MonkeyPatch, thinking: Thinking
) -> None:
    terminal = screens(monkeypatch, out=True, err=True)
    AnswerDisplay(Console(), thinking).show(drawn(("t", "A"), ("a", "The answer.")))
    count = f"\r{DIM}thinking ... 1{END}"
    assert seen(terminal[0]) == ["The answer.", ""]
    assert terminal[1].getvalue() == count + "\r" + " " * 14 + "\r"


def test_a_second_thought_begins_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    AnswerDisplay(Console(), "show").show(drawn(("t", "One."), ("a", "Two."), ("t", "Three."), ("a", "Four.")))
    assert shown(piped) == ("Two.\nFour.\n", "One.\nThree.\n")


def test_a_notice_begins_on_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = screens(monkeypatch, out=False, err=False)

    def events() -> Generator[Event, None, None]:
        yield TextDrawn(0, "thinking", "again again")
        yield Notice("the thought repeated itself")
        yield TextDrawn(0, "answer", "Done.\n")

    AnswerDisplay(Console(), "show").show(events())
    assert shown(piped) == ("Done.\n", "again again\nthe thought repeated itself\n")


def test_progress_goes_to_its_own_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    heard: list[Event] = []
    step = Progress("reading the prompt", "", 1, 2, "tokens")
    AnswerDisplay(Console(), "show", heard.append)(step)
    assert heard == [step]
    assert shown(piped) == ("", "")


@pytest.mark.parametrize(
    ("change", "params", "said"),
    [
        ({"finish_reason": "length"}, SamplingParams(max_tokens=4), "cut: the limit of 4 tokens is reached\n"),
        ({"finish_reason": "length"}, SamplingParams(max_tokens=9), "cut: the context is full\n"),
        ({"finish_reason": "length"}, SamplingParams(), "cut: the context is full\n"),
        (
            {"finish_reason": "length", "looped": True},
            SamplingParams(),
            "ended: the answer repeats itself; --loops keep lets it go on\n",
        ),
        ({"finish_reason": "cancelled"}, SamplingParams(), "stopped\n"),
        ({"answer": ""}, SamplingParams(), "the model ended inside its thought and gave no answer\n"),
        ({"answer": "", "finish_reason": "cancelled"}, SamplingParams(), "stopped\n"),
        (
            {"thought_closed_by": "budget"},
            SamplingParams(),
            "the thinking budget was spent; the answer follows from an unfinished thought\n",
        ),
        ({}, SamplingParams(), ""),
    ],
)
def test_what_is_said_about_the_end(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, str], params: SamplingParams, said: str
) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    AnswerDisplay(Console(), "show").finish(replace(DONE, **change), params)  # type: ignore[arg-type]
    assert shown(piped) == ("", said)


def test_a_failure_ends_the_line_and_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    ended = []

    def events() -> Generator[Event, None, None]:
        try:
            yield TextDrawn(0, "answer", "Half")
            yield Notice("x")
        finally:
            ended.append(True)

    class Failing(AnswerDisplay):
        def __call__(self, event: Event) -> None:
            if isinstance(event, Notice):
                raise KeyboardInterrupt
            super().__call__(event)

    generator = events()
    with pytest.raises(KeyboardInterrupt):
        Failing(Console(), "show").show(generator)
    assert ended == [True]
    assert shown(piped)[0] == "Half\n"


def test_a_notice_before_the_end_says_why_an_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    piped = screens(monkeypatch, out=False, err=False)
    display = AnswerDisplay(Console(), "show")
    display.show(iter_events(TextDrawn(0, "answer", "ab"), Notice("it cannot go on")))
    display.finish(replace(DONE, finish_reason="length"), SamplingParams())
    assert shown(piped) == ("ab\n", "it cannot go on\n")
    display(TextDrawn(0, "answer", "c"))
    display.finish(replace(DONE, finish_reason="length"), SamplingParams())
    assert shown(piped)[1] == "it cannot go on\ncut: the context is full\n"


def test_a_terminal_gets_an_answer_in_a_form_without_wrapping(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screens(monkeypatch, out=True, err=True)
    text = '{"a key": "a text that is longer than twenty columns \x1b[31m"}'
    AnswerDisplay(Console(), "show", form="exact").show(iter_events(TextDrawn(0, "answer", text)))
    assert shown(terminal)[0].replace("\r\n", "\n") == text.replace("\x1b", "") + "\n"


def iter_events(*events: Event) -> Generator[Event, None, None]:
    yield from events
