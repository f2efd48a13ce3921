from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner, Result

from dsr import cli
from dsr.chat.asked import check_known, effort_line, effort_of, kept_line, unknown_notes, with_usual
from dsr.chat.record import Record, kept_conversation
from dsr.chat.repl import Repl
from dsr.chat.summary import as_json, stats_line
from dsr.chat.tools.rounds import Round
from dsr.models.model import ChatFormat
from dsr.store import paths
from dsr.store.settings import Effort
from dsr.ui.console import Console
from runtime.base.errors import UsageError
from runtime.base.run import Stop
from runtime.base.types import Message
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.template import ChatTemplate
from runtime.engine.template_facts import LEVELS
from tests.dsr.chat.chatting import LEVELLED, PLAIN, TAGS, conversation
from tests.dsr.chat.test_repl import keys

LEVELS_OF = ChatFormat(ChatTemplate(LEVELLED, bos="", eos=""), TAGS, source="the chat template of fake:1b")
NONE = ChatFormat(ChatTemplate(PLAIN, bos="", eos=""), TAGS, source="the chat template of fake:1b")
HIGH, KEPT = PromptOptions(effort="high"), PromptOptions(keep_thoughts=True)


def test_the_setting_has_the_levels_of_the_option() -> None:
    assert get_args(Effort) == LEVELS
    assert [effort_of("--effort", each) for each in (*LEVELS, None)] == [*LEVELS, None]
    with pytest.raises(UsageError) as caught:
        effort_of("--effort", "hi")
    assert caught.value.message == "--effort must be minimal, low, medium, high or max, not 'hi'"


def refusal(chat_format: ChatFormat, asked: PromptOptions) -> tuple[str, str | None]:
    with pytest.raises(UsageError) as caught:
        check_known(chat_format, asked)
    return caught.value.message, caught.value.hint


def test_an_unknown_level_names_those_that_the_model_knows() -> None:
    check_known(LEVELS_OF, PromptOptions(effort="high", keep_thoughts=True))
    assert refusal(LEVELS_OF, PromptOptions(effort="max")) == (
        "--effort max: the chat template of fake:1b knows the levels low, medium, high, not max",
        "give one of those; or leave out --effort",
    )
    assert refusal(NONE, HIGH) == (
        "--effort high: the chat template of fake:1b knows no levels of effort",
        "leave out --effort; or --think-budget N limits the thought",
    )
    assert refusal(NONE, KEPT) == (
        "--keep-thoughts: the chat template of fake:1b never writes earlier thoughts",
        "leave out --keep-thoughts",
    )


def test_settings_stand_in_for_options_and_are_not_refused() -> None:
    usual = PromptOptions(effort="low", keep_thoughts=True)
    assert with_usual(PromptOptions(thinking=False), usual) == PromptOptions(False, "low", True)
    assert with_usual(HIGH, usual) == PromptOptions(None, "high", True)
    assert NONE.known(usual) == PromptOptions()
    assert LEVELS_OF.known(usual) == usual
    assert LEVELS_OF.known(PromptOptions(thinking=False, effort="low")) == PromptOptions(thinking=False)
    assert unknown_notes(NONE, usual) == [
        "the chat template of fake:1b knows no levels of effort: effort low has no effect",
        "the chat template of fake:1b never writes earlier thoughts: keeping thoughts has no effect",
    ]


def test_lines_for_show() -> None:
    assert effort_line(LEVELS_OF, PromptOptions()) == "default (of low, medium, high; default medium)"
    assert effort_line(LEVELS_OF, HIGH) == "high (of low, medium, high; default medium)"
    assert effort_line(NONE, HIGH) == "the chat template knows no levels of effort"
    assert (kept_line(LEVELS_OF, PromptOptions()), kept_line(LEVELS_OF, KEPT)) == ("removed", "kept")
    assert kept_line(NONE, KEPT) == "removed; the chat template never writes them"


def test_effort_and_kept_thoughts_reach_the_prompt_of_every_question() -> None:
    talk = conversation("<think>hm</think>Yes.", template=LEVELLED)
    talk.options.asked = PromptOptions(effort="high", keep_thoughts=True)
    for question in ("One?", "Two?"):
        list(talk.ask(question))
    assert bytes(talk._read).decode() == (
        "effort high\nuser: One?\nassistant: <think>hm</think>Yes.\nuser: Two?\nassistant:"
    )
    assert talk.last is not None and stats_line(talk.last).startswith("effort high, ")
    body = as_json(talk, [Round(talk.last)])
    assert (body["effort"], body["kept_thoughts"]) == ("high", True)
    talk.options.asked = PromptOptions()
    list(talk.ask("Three?"))
    assert bytes(talk._read).decode().startswith("effort medium\nuser: One?\nassistant: Yes.\n")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    talk = conversation("<think>hm</think>Yes.", template=LEVELLED)
    record = Record(None, Console())
    lines = ("/effort", "/effort high", "/effort low Why?", "/effort", "/effort max", "/effort default", "/effort x")
    Repl(talk, Console(), record, Stop()).run(keys(*lines, "/keep-thoughts on", "/keep-thoughts", "/keep-thoughts x"))
    assert bytes(talk._read).decode().startswith("effort low\n")
    assert talk.options.asked == PromptOptions(keep_thoughts=True)
    return capsys.readouterr().err.splitlines()


def test_effort_is_set_in_a_conversation_and_for_one_question(said: list[str]) -> None:
    assert [line for line in said if line != "hm"] == [
        "effort: default (of low, medium, high; default medium)",
        "effort: high (of low, medium, high; default medium)",
        "effort: high (of low, medium, high; default medium)",
        "error: /effort max: the chat template of fake:1b knows the levels low, medium, high, not max",
        "hint: give one of those",
        "effort: default (of low, medium, high; default medium)",
        "error: /effort must be minimal, low, medium, high or max, not 'x'",
        "earlier thoughts: kept",
        "earlier thoughts: kept",
        "error: /keep-thoughts takes on, off, or nothing",
    ]


def test_a_kept_conversation_brings_its_thoughts_back() -> None:
    talk = conversation("<think>hm</think>Yes.")
    with Record.open(paths.conversations_file(), Console()) as record:
        record.begin("fake:1b", "")
        list(talk.ask("x"))
        assert talk.last is not None
        record.keep("x", [Round(talk.last)])
    assert kept_conversation(paths.conversations_file()).messages == (
        Message("user", "x"),
        Message("assistant", "Yes.", "hm"),
    )


# --- as a user meets it


def chat(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["chat", "--threads", "1", *arguments])


def test_what_a_model_does_not_know_is_refused_before_it_is_loaded() -> None:
    refused = chat("nano", "--effort", "high", "hi")
    assert refused.exit_code == 2 and "nano knows no levels of effort" in refused.stderr
    assert chat("nano", "--effort", "much", "hi").exit_code == 2
    assert chat("nano", "--keep-thoughts", "hi").exit_code == 2
    both = chat("nano", "--no-think", "--effort", "low", "hi")
    assert both.exit_code == 2 and "--no-think and --effort low exclude each other" in both.stderr


def test_effort_of_options_and_settings_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = tmp_path / "levels.jinja"
    template.write_text(LEVELLED)
    options = ("nano", "--template", str(template), "--json", "--max-tokens", "2", "1 + 1?")
    assert json.loads(chat(*options, "--effort", "high").stdout)["effort"] == "high"
    monkeypatch.setenv("DSR_EFFORT", "low")
    assert json.loads(chat(*options).stdout)["effort"] == "low"
    without = json.loads(chat("nano", "--json", "--max-tokens", "2", "1 + 1?").stdout)
    assert without["effort"] is None  # nano knows no levels, and nobody asked now
