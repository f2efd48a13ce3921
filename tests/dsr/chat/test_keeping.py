"""What leaves a conversation and comes back: copies, files, and kept conversations."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from dsr.chat.conversation import Conversation
from dsr.chat.export_file import as_markdown
from dsr.chat.record import Record
from dsr.chat.repl import Repl
from dsr.ui import clipboard
from dsr.ui.console import Console
from runtime.base.run import Stop
from runtime.base.types import Message, ToolCall
from tests.dsr.chat.chatting import a_model, conversation

CODE = "So:\n```python\nx = 1\n```\nand\n```\ny = 2\n```\n"


class Talk:
    """A REPL with a fake model; `type` returns what appeared on stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str], log: Record) -> None:
        self._capsys, self._log = capsys, log
        self.conversation: Conversation = conversation("Zero.", CODE)

    def type(self, *lines: str) -> str:
        left = iter(lines)

        def read(_: str) -> str:
            for line in left:
                return line
            raise EOFError

        self.repl = Repl(self.conversation, Console(), self._log, Stop())
        self.wanted = self.repl.run(read)
        self.answers, said = self._capsys.readouterr()
        return said


@pytest.fixture
def talk(capsys: pytest.CaptureFixture[str], log: Record) -> Talk:
    return Talk(capsys, log)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []

    def copy(text: str) -> str:
        texts.append(text)
        return "a test"

    monkeypatch.setattr("dsr.ui.clipboard.copy", copy)
    return texts


def test_copy_takes_the_answer_its_code_or_everything(talk: Talk, copied: list[str]) -> None:
    assert "there is no answer to copy yet" in talk.type("/copy")
    talk.type("Hello", "/copy")
    assert "the last answer has no block of code" in talk.type("/copy code")
    talk.type("/retry", "/copy code", "/copy all")
    assert copied == ["Zero.", "y = 2\n", f"# Conversation with fake:1b\n\n> Hello\n\n{CODE}\n"]
    assert "/copy takes code, all, or nothing, not 'x'" in talk.type("/copy x")


def test_an_export_is_markdown_and_a_name_in_json_is_saved(talk: Talk, tmp_path: Path) -> None:
    said = talk.type("/system Be brief.", "Hello", f"/export {tmp_path}/a.md", f"/export {tmp_path}/a.json")
    assert f"wrote 2 messages to {tmp_path}/a.md" in said
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert text == "# Conversation with fake:1b\n\nSystem prompt:\n\n> Be brief.\n\n> Hello\n\nZero.\n"
    assert '"dsr.conversation/1"' in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["/save", "/export"])
def test_a_file_of_somebody_else_is_not_overwritten(talk: Talk, tmp_path: Path, command: str) -> None:
    theirs, own = tmp_path / "theirs", tmp_path / "own"
    theirs.write_text("precious")
    said = talk.type("Hello", f"{command} {theirs}", f"{command} {own}", "More", f"{command} {own}")
    assert f"{theirs} exists already; nothing is written" in said
    assert theirs.read_text() == "precious"
    assert "4 messages" in said


def test_history_lists_and_searches_and_resume_goes_on(talk: Talk, log: Record) -> None:
    assert "no conversations found" in talk.type("/history")
    said = talk.type("First", "/clear", "Second", "/history")
    assert [line.split()[-1] for line in said.splitlines() if line.split()[0].isdecimal()] == ["Second", "First"]
    assert "Second" not in talk.type("/history first")
    said = talk.type("/resume 1")
    assert "continuing with 2 messages, begun by: First" in said
    assert [turn.content for turn in talk.conversation.turns] == ["First", "Zero."]
    assert log.number == 1
    assert "begun by: Second" in talk.type("/resume")
    assert "there is no conversation 9" in talk.type("/resume 9")
    assert "/resume takes the number of a conversation, not 'x'" in talk.type("/resume x")


def test_a_conversation_with_another_model_is_resumed_with_it(
    talk: Talk, log: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk.type("Hello")
    log.begin("some/other:Q4_K_M", "")
    talk.type("Other", "/clear")
    monkeypatch.setattr("dsr.models.library.find", a_model)
    talk.type("/resume 2")
    assert talk.wanted == a_model("some/other:Q4_K_M")
    assert talk.repl.resumed is not None
    assert talk.repl.resumed.messages[0].content == "Other"


def test_a_file_in_the_question_goes_with_it(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_text("Gold.")
    said = talk.type(f"What is in @{tmp_path}/n.txt?", "And @none.txt?")
    assert "Gold." in talk.conversation.turns[0].content
    assert "there is no file none.txt: the question goes without it" in said


def test_edit_sends_what_the_editor_leaves(talk: Talk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text("import sys; open(sys.argv[1], 'a').write(' more\\nlines\\n')")
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    monkeypatch.delenv("VISUAL", raising=False)
    assert "> some more\n> lines\n" in talk.type("/edit some")
    assert talk.conversation.turns[0].content == "some more\nlines"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("no-such-editor", "EDITOR='no-such-editor': there is no such program"),
        ("'", 'EDITOR="\'": a quotation mark is missing'),
        ("false", "false ended with exit code 1; its text is not used"),
    ],
)
def test_an_editor_that_fails_sends_nothing(
    talk: Talk, monkeypatch: pytest.MonkeyPatch, command: str, problem: str
) -> None:
    monkeypatch.setenv("EDITOR", command)
    monkeypatch.delenv("VISUAL", raising=False)
    assert problem in talk.type("/edit")
    assert talk.conversation.turns == []


def test_raw_shows_the_answer_as_the_model_wrote_it(talk: Talk) -> None:
    assert "no answer yet" in talk.type("/raw")
    talk.type("Hello", "/raw", "/raw on")
    assert (talk.answers, talk.conversation.options.form) == ("Zero.\nZero.\n", "wrapped")


def test_set_lists_shows_suggests_and_resets(talk: Talk) -> None:
    said = talk.type("/set temp 1.5", "/set temp", "/set tmep 1", "/set")
    assert "temp                 1.5 (0 to 10)" in said
    assert "hint: did you mean temp?" in said
    assert "max-tokens           off (at least 1)" in said
    assert "top-p                0.95 (above 0, at most 1)" in said
    talk.type("/set reset")
    assert talk.conversation.options.sampling.temperature is None


def test_calls_of_tools_are_exported_in_fences() -> None:
    turns = [
        Message("user", "Weather?"),
        Message("assistant", "", calls=(ToolCall("1", "look", '{"city": "Bern"}'),)),
        Message("tool", "```sunny```", name="look"),
        Message("assistant", "Sunny."),
    ]
    assert as_markdown("m", "", turns) == (
        '# Conversation with m\n\n> Weather?\n\nIt called look with:\n\n```\n{"city": "Bern"}\n```\n\n'
        "look returned:\n\n````\n```sunny```\n````\n\nSunny.\n"
    )


def test_a_terminal_gets_the_text_as_osc_52(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    monkeypatch.setattr("dsr.ui.clipboard.is_terminal", lambda _: True)
    monkeypatch.setattr("dsr.ui.clipboard._program", lambda: None)
    told = clipboard.copy("hé\x1b[0m")
    assert told == "by the terminal; if it pastes nothing, it allows no copying: /export FILE"
    written = capsys.readouterr().err
    assert written == f"\x1b]52;c;{base64.b64encode('hé'.encode() + bytes([27]) + b'[0m').decode()}\x07"
