"""Events as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from dsr.ui.console import Console
from dsr.ui.event_lines import EventLines
from dsr.ui.progress import showing
from runtime.base.events import Notice, Progress


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_progress_is_told_at_the_begin_each_second_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    listen = EventLines(lambda: clock[0])
    for moment, done in ((0.0, 0), (0.4, 2), (0.9, 5), (1.1, 6), (1.2, 7), (1.3, 10)):
        clock[0] = moment
        listen(Progress("reading", "a", done, 10, "tokens"))
    told = lines(capsys.readouterr().out)
    assert [(each["done"], each["finished"]) for each in told] == [(0, False), (6, False), (10, True)]
    assert told[0] == {
        "schema": "dsr.event/1",
        "event": "progress",
        "job": "reading",
        "item": "a",
        "done": 0,
        "total": 10,
        "unit": "tokens",
        "finished": False,
    }


def test_an_unknown_total_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    EventLines()(Progress("reading", "", 3, 0, "steps"))
    assert lines(capsys.readouterr().out)[0]["total"] is None


def test_notices_and_warnings_are_events_and_the_result_is_last(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(jsonl=True)
    with showing(console) as listen:
        listen(Notice("a\nb"))
        console.warn("careful")
        console.say("not shown")
        console.data("not shown")
    console.json("dsr.test/1", {"done": True})
    told = lines(capsys.readouterr().out)
    assert [each.get("event", each["schema"]) for each in told] == ["notice", "warning", "dsr.test/1"]
    assert (told[0]["text"], told[1]["text"]) == ("a\nb", "careful")


def test_a_command_streams(tmp_path: Path) -> None:
    command = ["quantize", "nano", str(tmp_path / "a.gguf"), "q4_0", "--allow-requantize", "--jsonl"]
    told = lines(CliRunner().invoke(app, command).stdout)
    assert {each["schema"] for each in told[:-1]} == {"dsr.event/1"}
    assert told[-1]["schema"] == "dsr.quantize/1"
    again = lines(CliRunner().invoke(app, command).stdout)
    assert (again[-1]["schema"], again[-1]["exit_code"]) == ("dsr.error/1", 2)
