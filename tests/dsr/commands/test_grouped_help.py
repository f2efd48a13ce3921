"""The text of --help at the widths of terminals."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from dsr.cli import app
from dsr.commands.chat import with_numbers


def help_of(*names: str, columns: int) -> str:
    command: Any = typer.main.get_command(app)
    context = command.context_class(command, info_name="dsr", terminal_width=columns, **command.context_settings)
    for name in names:
        command = command.commands[name]
        context = command.context_class(command, info_name=name, parent=context, terminal_width=columns)
    return str(command.get_help(context))


def test_the_options_of_chat_are_in_groups() -> None:
    lines = help_of("chat", columns=78).splitlines()
    heads = [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]
    groups = ["Answer", "Thinking", "Votes and strategies", "Sampling", "Model and memory", "Output"]
    assert heads == ["Arguments", *groups]
    assert lines[-1].split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]


def test_few_options_are_one_list() -> None:
    assert "\nOptions:\n" in help_of("rm", columns=78)
    assert "\nOutput:\n" not in help_of("rm", columns=78)


@pytest.mark.parametrize("names", [(), ("chat",), ("quantize",), ("bench",), ("bench", "reason"), ("node", "serve")])
def test_no_word_is_cut_at_any_width(names: tuple[str, ...]) -> None:
    words = " ".join(help_of(*names, columns=400).split())
    for columns in (38, 58, 78):
        text = help_of(*names, columns=columns)
        assert " ".join(text.split()) == words
        assert max(map(len, text.splitlines())) <= max(columns, max(map(len, words.split())) + 8)


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        (["--resume"], ["--resume"]),
        (["--resume", "12"], ["--resume-id", "12"]),
        (["--resume=12", "Why?"], ["--resume-id", "12", "Why?"]),
        (["nano", "--resume", "-p", "12"], ["nano", "--resume", "-p", "12"]),
        (["--resume", "Why?"], ["--resume", "Why?"]),
        (["--logprobs", "3", "Why?"], ["--top-logprobs", "3", "Why?"]),
        (["--logprobs=3"], ["--top-logprobs", "3"]),
        (["--logprobs", "Why?"], ["--logprobs", "Why?"]),
        (["--", "--resume", "12"], ["--", "--resume", "12"]),
    ],
)
def test_resume_and_logprobs_may_take_a_number(typed: list[str], parsed: list[str]) -> None:
    assert with_numbers(typed) == parsed
