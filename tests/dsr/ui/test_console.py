"""The output sink: what goes where in each of the three modes, and what a terminal never gets to see."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from dsr.ui import streams
from dsr.ui.console import Console, columns, printable, printable_stream, show_error, styled, wrapped
from runtime.base.errors import Aborted, DsrError, NotFound, UsageError
from tests.dsr.chat.chatting import screens


def everything(console: Console) -> None:
    """Say one thing of each kind."""
    console.data("data")
    console.table(("A", "B"), [("x", "1"), ("日本", "22")], right=(1,))
    console.json("dsr.test/1", {"a": 1, "text": "é\n"})
    console.say("talk")
    console.warn("careful")


def test_a_person_gets_everything_but_json(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Console())
    assert capsys.readouterr() == ("data\nA      B\nx      1\n日本  22\n", "talk\nwarning: careful\n")


def test_quiet_is_the_result_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Console(quiet=True))
    assert capsys.readouterr() == ("data\n", "warning: careful\n")


def test_json_is_one_object_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    everything(Console(json_mode=True, quiet=True))
    out, err = capsys.readouterr()
    assert out == '{"schema": "dsr.test/1", "a": 1, "text": "é\\n"}\n'
    assert json.loads(out) == {"schema": "dsr.test/1", "a": 1, "text": "é\n"}
    assert err == "warning: careful\n"


def test_colour_only_at_a_terminal_that_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, out=False, err=True)
    assert styled("x", "red", err) == "\x1b[31mx\x1b[0m"
    assert styled("x", "red", out) == "x"
    assert styled("", "red", err) == ""
    monkeypatch.setenv("NO_COLOR", "1")
    assert styled("x", "red", err) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert styled("x", "red", err) == "x"


def test_what_could_drive_a_terminal_goes() -> None:
    assert printable("a\x1b[31mb\x07\u202e\u200d\tc\n\x9b") == "a[31mb\tc\n"
    assert printable_stream("\x1b]0;title\x07👩\u200d🚀\u202e") == "]0;title👩\u200d🚀"


def test_lines_are_broken_between_words_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, out=False, err=True, columns=12)
    assert wrapped("one two three four", err, hang=2) == "one two\n  three four"
    assert wrapped("one /a/long/path two", err, hang=2) == "one /a/long/path two"
    assert wrapped("日本 語の 文章", err) == "日本 語の\n文章"
    assert wrapped("one two three four", out) == "one two three four"


def test_the_width_of_a_terminal_nobody_knows_is_80(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=True, err=True, columns=33)
    assert columns(err) == 33
    monkeypatch.delenv("COLUMNS")
    assert columns(err) == 80


def test_an_error_is_a_line_of_what_and_a_line_of_what_next(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(NotFound("no\nsuch \x1b[1mthing", hint="look there"))
    assert capsys.readouterr().err == "error: no such [1mthing\nhint: look there\n"
    show_error(UsageError("no"))
    assert capsys.readouterr().err == "error: no\n"


def test_being_stopped_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    show_error(Aborted())
    assert capsys.readouterr().err == "stopped\n"


def test_without_a_terminal_a_question_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert Console().confirm("Sure?", yes=True)
    with pytest.raises(UsageError) as caught:
        Console().confirm("Sure?", yes=False)
    assert (caught.value.message, caught.value.hint) == ("there is no terminal to ask at: Sure?", "add -y to say yes")


def test_a_full_disk_is_one_line_and_the_buffer_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        with pytest.raises(DsrError, match="the output cannot be written: No space left on device"):
            Console().data("x")
        Console().data("this goes nowhere")


def test_a_reader_who_left_is_told_apart_from_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr("sys.stdout", gone)
        with pytest.raises(BrokenPipeError):
            Console().data("x")


def test_talk_that_nobody_can_hear_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr("sys.stderr", gone)
        Console().say("x")
        Console().say("y")


def test_a_character_that_the_stream_cannot_spell_becomes_a_question_mark(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with open(tmp_path / "out", "w", encoding="ascii") as narrow:
        monkeypatch.setattr("sys.stdout", narrow)
        streams.mend()
        Console().data("smile 🙂")
    assert (tmp_path / "out").read_bytes() == b"smile ?\n"


def test_a_summary_is_wrapped_between_words_at_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "total 12.5 MiB, to download 12.5 MiB; free on this disk 71.8 GiB"
    out, _ = screens(monkeypatch, out=True, err=True, columns=40)
    Console().summary(text)
    assert out.getvalue() == "total 12.5 MiB, to download 12.5 MiB;\nfree on this disk 71.8 GiB\n"
    out, _ = screens(monkeypatch, out=False, err=True, columns=40)
    Console().summary(text)
    assert out.getvalue() == text + "\n"
