"""How samples appear while they are drawn, at a terminal and in a pipe."""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

from dsr.ui.console import Console
from dsr.ui.live_view import LiveView
from runtime.base.events import Event, Notice, Progress, SampleFinished, SampleNoted, TextDrawn
from runtime.base.types import Completion, FinishReason
from runtime.strategies.verdict import Sample
from runtime.strategies.verdict import ended as finished
from tests.dsr.chat.chatting import screens

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
SGR = re.compile(r"\x1b\[\d+(?:;\d+)*m")


def ended(number: int, answer: str, tokens: int, reason: FinishReason = "stop") -> Completion:
    text = f"\\boxed{{{answer}}}" if answer else ""
    return Completion(number, "", text, (1,) * tokens, 0, reason, 1.0)


def vote() -> Generator[Event, None, None]:
    samples: list[Sample] = []
    yield Progress("reading the prompt", "", 5, 5, "tokens")
    yield TextDrawn(0, "thinking", "hm")
    yield TextDrawn(1, "thinking", "well")
    yield from finished(ended(0, "933", 84), samples)
    yield Notice("the thought repeated itself and was closed")
    yield from finished(ended(1, "", 60, "length"), samples)
    yield SampleNoted(2, "stopped: it is clear")
    yield from finished(ended(2, "", 31, "cancelled"), samples)


def shown(console: Console, events: Generator[Event, None, None]) -> None:
    LiveView(console, "vote n=8", now=lambda: 0.0).show(events)


def test_in_a_pipe_every_sample_is_a_line_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, out=False, err=False)
    shown(Console(), vote())
    assert out.getvalue() == ""
    assert err.getvalue().splitlines() == [
        "sample 1: 933 (84 tokens)",
        "the thought repeated itself and was closed",
        "sample 2: no answer (60 tokens, cut at the limit)",
        "sample 3: stopped: it is clear (31 tokens)",
    ]


def test_samples_that_answer_other_questions_have_no_answer_to_show(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=False, err=False)
    events = (
        SampleNoted(0, "judging, round 1"),
        TextDrawn(0, "answer", "7"),
        SampleFinished(ended(0, "7", 9)),
        SampleFinished(ended(1, "8", 5)),
    )
    LiveView(Console(), "verify", voting=False).show(event for event in events)
    assert err.getvalue() == "sample 1: judging, round 1 (9 tokens)\nsample 2: ended (5 tokens)\n"


@pytest.mark.parametrize("console", [Console(quiet=True), Console(json_mode=True)])
@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_and_json_say_nothing(monkeypatch: pytest.MonkeyPatch, console: Console, terminal: bool) -> None:
    out, err = screens(monkeypatch, out=terminal, err=terminal)
    shown(console, vote())
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_at_a_terminal_a_panel_moves_and_is_gone_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, out=True, err=True, columns=80)
    shown(Console(), vote())
    assert out.getvalue() == ""
    text = SGR.sub("", err.getvalue())
    assert "1 84 tokens   84/s  933" in text
    assert "the thought repeated itself and was closed\n" in text
    assert "3 31 tokens   31/s  stopped: it is clear" in text
    assert "sample 1: " not in text
    # Hidden once, shown again, and every line of the last frame was erased.
    assert (text.count(HIDE_CURSOR), text.count(SHOW_CURSOR)) == (1, 1)
    assert text.rpartition(SHOW_CURSOR)[2].count("\x1b[2K") == 6


@pytest.mark.parametrize("failure", [KeyboardInterrupt, BrokenPipeError])
def test_whatever_ends_it_the_cursor_comes_back(monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]) -> None:
    _, err = screens(monkeypatch, out=True, err=True, columns=80)
    closed = []

    def events() -> Generator[Event, None, None]:
        try:
            yield TextDrawn(0, "answer", "x")
            raise failure
        finally:
            closed.append(True)

    with pytest.raises(failure):
        shown(Console(), events())
    assert closed == [True]
    assert err.getvalue().count(HIDE_CURSOR) == err.getvalue().count(SHOW_CURSOR) == 1


def test_no_color_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=True, err=True, columns=80)
    monkeypatch.setenv("NO_COLOR", "1")
    shown(Console(), vote())
    assert SGR.findall(err.getvalue()) == []
    assert "933" in err.getvalue()


def test_text_of_a_model_cannot_drive_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=True, err=True, columns=80)
    shown(Console(), (event for event in (TextDrawn(0, "answer", "\x1b]0;owned\x07[red]x"),)))
    assert "]0;owned[red]x" in err.getvalue()
    assert "\x1b]0" not in err.getvalue() and "\x07" not in err.getvalue()


def test_frames_are_not_drawn_faster_than_one_can_see(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=True, err=True, columns=80)
    shown(Console(), (TextDrawn(0, "answer", f"word{number} ") for number in range(1000)))
    assert err.getvalue().count("word0") == 2  # and once more when it goes
    assert "word999" not in err.getvalue()


def test_what_a_terminal_cannot_spell_takes_one_column_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=True, err=True, columns=30)
    monkeypatch.setattr(type(err), "encoding", "ascii", raising=False)
    text_of_one = TextDrawn(0, "answer", "a long text, naïve and 漢")
    shown(Console(), (event for event in (text_of_one, *finished(ended(1, "1", 2), []))))
    text = SGR.sub("", err.getvalue())
    assert "\n1 1 ~ng text, na?ve and ?" in text and "1 #### 1" in text
    assert text.isascii()
