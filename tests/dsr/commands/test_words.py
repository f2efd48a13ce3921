"""Words of other programs, older spellings of options, and errors of usage."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dsr.cli import app
from dsr.commands.words import OPTIONS, RENAMED, SPELLINGS, WORDS, hint_for_option, translated
from runtime.base.errors import UsageError

COMMANDS = tuple(getattr(typer.main.get_command(app), "commands", {}))
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "other-programs.md"


def said(line: str) -> list[str]:
    return translated(line.split(), COMMANDS)


@pytest.mark.parametrize(
    ("line", "now"),
    [
        ("", ""),
        ("chat nano hi", "chat nano hi"),
        ("run nano hi", "chat nano hi"),
        ("ls --json", "list --json"),
        ("perplexity a.gguf", "bench quality a.gguf"),
        ("-m nano -p hi", "chat -m nano -p hi"),
        ("-hf org/repo:Q4_K_M hi", "chat --model org/repo:Q4_K_M hi"),
        ("serve -hf org/repo", "serve org/repo"),
        ("pull --hf-repo=org/repo", "pull org/repo"),
        ("help", "--help"),
        ("help run", "chat --help"),
        ("help bench speed", "bench speed --help"),
        ("help -h", "--help"),
        ("--version", "--version"),
        ("-h", "-h"),
        ("run nano hi --verbose --think=false", "chat nano hi --stats --no-think"),
        ("chat nano --temperature 0.5", "chat nano --temp 0.5"),
        ("chat nano --temperature=0.5", "chat nano --temp 0.5"),
        ("chat nano -- --temperature", "chat nano -- --temperature"),
        ("bench speed nano --jsonl rows.jsonl", "bench speed nano --rows rows.jsonl"),
        ("bench speed --jsonl nano", "bench speed --jsonl nano"),
        ("bench speed nano --votes 1 --votes=2", "bench speed nano --vote 1 --vote 2"),
        ("quantize --output-tensor-type q8_0 a b", "quantize --tensor-type ^output[.]weight=q8_0 a b"),
    ],
)
def test_words_of_other_programs_become_ours(line: str, now: str) -> None:
    assert said(line) == now.split()


def test_a_text_is_a_question() -> None:
    assert translated(["why is the sky blue"], COMMANDS) == ["chat", "why is the sky blue"]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("ps", "dsr has no command ps (Ollama has)", "curl http://127.0.0.1:11500/api/ps"),
        ("pul x", "dsr has no command 'pul'", "did you mean dsr pull?"),
        ("qwen3:8b", "dsr has no command 'qwen3:8b'", "to talk to a model: dsr chat qwen3:8b"),
        ("deepseek-r1", "dsr has no command 'deepseek-r1'", "to talk to a model: dsr chat deepseek-r1"),
        ("hello", "dsr has no command 'hello'", 'to ask a question: dsr chat "hello ..."'),
        ("chat -ngl 99 hi", "dsr chat has no option -ngl", "to see where: dsr plan MODEL"),
        ("help nothing", "dsr has no command 'nothing'", "all commands: dsr --help"),
    ],
)
def test_other_words_say_what_does_it_here(line: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        said(line)
    assert caught.value.message == message
    assert hint in str(caught.value.hint)


def test_completion_never_stops_at_a_word() -> None:
    assert translated(["ps"], COMMANDS, strict=False) == ["ps"]
    assert translated(["chat", "-ngl"], COMMANDS, strict=False) == ["chat", "-ngl"]


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_line_is_translated_or_refused(args: list[str]) -> None:
    try:
        now = translated(args, COMMANDS)
    except UsageError as error:
        assert error.hint
    else:
        assert all(isinstance(each, str) for each in now)


def test_every_word_has_one_meaning_and_no_command_is_hidden() -> None:
    for name, word in WORDS.items():
        assert bool(word.now) != bool(word.says), name
        assert name not in COMMANDS
        assert not word.now or word.now[0] in (*COMMANDS, "--version"), name


def option_names(*path: str) -> set[str]:
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    return {each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)}


def test_renamed_options_exist_and_their_old_names_do_not() -> None:
    for path, names in RENAMED.items():
        known = option_names(*path)
        assert set(names.values()) <= known, path
        assert not set(names) & known, path
    for command, spellings in SPELLINGS.items():
        for old, now in spellings.items():
            known = option_names("chat" if command == "*" else command)
            assert old not in known, (command, old)
            assert now == "MODEL" or re.split("[ =]", now)[0] in known, (command, now)


def test_an_unknown_option_gets_a_hint() -> None:
    assert hint_for_option("--no-stream", "dsr chat") == OPTIONS["--no-stream"]
    assert hint_for_option("--vot", "dsr chat", ["--vote", "--out"]) == "did you mean --vote?"
    assert hint_for_option("--abc", "dsr chat") == "to see the options: dsr chat --help"


def test_the_guide_has_every_word() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert [name for name in WORDS if f"`{name}`" not in text] == []


# --- at the command line


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), prog_name="dsr")
    return result.exit_code, result.stdout, result.stderr


def test_dsr_alone_shows_three_things_to_do() -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  dsr ")] == ["chat", "list", "pull"]


def test_a_group_alone_shows_its_help() -> None:
    code, out, err = run("bench")
    assert code == 2
    assert "Commands:" in out + err


@pytest.mark.parametrize(
    ("arguments", "error", "code"),
    [
        (("show", "--json"), "dsr show: missing argument 'MODEL'", 2),
        (("show", "nano", "--json", "--abc"), "dsr show has no option --abc", 2),
        (("ps", "--json"), "dsr has no command ps (Ollama has)", 2),
        (("show", "--json", "no-such:1b"), "no model is called 'no-such:1b'", 3),
        (("chat", "--json", "--vote", "300", "x"), "between 1 and 255 samples can be drawn, not 300", 2),
    ],
)
def test_an_error_under_json_is_an_object(arguments: tuple[str, ...], error: str, code: int) -> None:
    found, out, err = run(*arguments)
    body = json.loads(out)
    assert (found, body["schema"], body["exit_code"]) == (code, "dsr.error/1", code)
    assert body["error"].startswith(error[:30])
    assert f"error: {body['error']}\n" in err
    assert body["hint"] is None or f"hint: {body['hint']}\n" in err


def test_a_command_that_printed_its_object_prints_no_second_one() -> None:
    code, out, _ = run("node", "list", "--json", "--nodes", "127.0.0.1:1")
    assert code == 6
    assert json.loads(out)["schema"].startswith("dsr.node")


def test_without_json_stdout_stays_empty() -> None:
    assert run("show", "no-such:1b")[:2] == (3, "")
