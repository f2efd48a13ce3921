from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from dsr.cli import Boundary
from dsr.commands.history import history
from dsr.store import paths
from dsr.store.conversations import Conversations
from dsr.ui import fields


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DSR_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def filled() -> None:
    with Conversations(paths.conversations_file()) as store:
        id = store.begin("nano", "Be brief.")
        store.add(id, "user", "What is 1+1?\nPlease.")
        store.add(id, "assistant", "It is \x1b[31m2.", "1+1=2", {"tokens": 9})
        id = store.begin("deepseek-r1:7b")
        store.add(id, "user", "moon " * 30)


def run(*arguments: str) -> Result:
    app = typer.Typer(cls=Boundary)
    app.command("history")(history)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["history", *arguments])


def answer(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    value: dict[str, Any] = json.loads(result.stdout)
    assert value.pop("schema") == "dsr.history/1"
    return value


@pytest.mark.usefixtures("filled")
def test_the_list_is_one_line_per_conversation_the_latest_first() -> None:
    lines = run().stdout.splitlines()
    assert lines[0].split() == ["ID", "WHEN", "MODEL", "TURNS", "FIRST", "QUESTION"]
    assert lines[1].split()[0] == "2" and lines[1].endswith(("moon " * 30).strip())
    assert lines[2].split()[0] == "1" and lines[2].endswith("What is 1+1? Please.")
    assert len(lines) == 3


@pytest.mark.usefixtures("filled")
def test_the_list_as_json() -> None:
    newest, oldest = answer()["conversations"]
    assert newest["first_question"] == ("moon " * 30).strip()
    assert oldest.pop("started").endswith("+00:00")
    assert oldest == {"id": 1, "model": "nano", "turns": 2, "questions": 1} | {
        "first_question": "What is 1+1? Please.",
        "cache_bytes": 0,
    }


@pytest.mark.usefixtures("filled")
def test_a_limit_says_that_there_is_more() -> None:
    result = run("--limit", "1")
    assert len(result.stdout.splitlines()) == 2
    assert "to list more: --limit" in result.stderr
    assert run("--limit", "2").stderr == ""


@pytest.mark.usefixtures("filled")
def test_quiet_prints_the_numbers_alone() -> None:
    result = run("--quiet")
    assert (result.stdout, result.stderr) == ("2\n1\n", "")


@pytest.mark.usefixtures("filled")
def test_search_lists_what_mentions_the_text() -> None:
    assert [one["id"] for one in answer("--search", "PLEASE")["conversations"]] == [1]
    result = run("--search", "nowhere")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no conversations found" in result.stderr


@pytest.mark.usefixtures("filled")
def test_one_conversation_is_shown_without_what_could_drive_the_terminal() -> None:
    result = run("1")
    assert result.stdout.splitlines()[1:] == [
        "",
        "system: Be brief.",
        "",
        "> What is 1+1?",
        "> Please.",
        "",
        "It is [31m2.",
    ]
    assert "1+1=2" in run("1", "--thinking").stdout


@pytest.mark.usefixtures("filled")
def test_one_conversation_as_json_is_complete() -> None:
    shown = answer("1")["conversation"]
    assert (shown["id"], shown["model"], shown["system"]) == (1, "nano", "Be brief.")
    assert shown["turns"] == [
        {"role": "user", "content": "What is 1+1?\nPlease.", "thinking": "", "stats": None},
        {"role": "assistant", "content": "It is \x1b[31m2.", "thinking": "1+1=2", "stats": {"tokens": 9}},
    ]


@pytest.mark.usefixtures("filled")
def test_deleting_needs_a_yes() -> None:
    refused = run("--delete", "1")
    assert refused.exit_code == 2
    assert "no terminal to ask at" in refused.stderr
    assert len(answer()["conversations"]) == 2
    assert run("--delete", "1", "-y").exit_code == 0
    assert [one["id"] for one in answer()["conversations"]] == [2]
    assert answer("--delete", "2", "--yes") == {"deleted": 2}


@pytest.mark.parametrize("arguments", [["9"], ["--delete", "9", "-y"]])
@pytest.mark.usefixtures("filled")
def test_an_unknown_conversation_is_not_found(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: there is no conversation 9\nhint: to list them: dsr history\n"


def test_nothing_kept_yet_is_no_error_and_makes_no_file() -> None:
    assert run().exit_code == 0
    assert answer() == {"conversations": []}
    assert run("3").exit_code == 3
    assert not paths.conversations_file().exists()


def test_the_path_is_told(home: Path) -> None:
    path = str(home / "data" / "conversations.sqlite")
    assert run("--path").stdout == path + "\n"
    assert answer("--path") == {"path": path}


def test_two_requests_at_once_are_refused() -> None:
    result = run("1", "--path")
    assert result.exit_code == 2
    assert "cannot be combined" in result.stderr


def test_a_damaged_file_is_one_line(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "conversations.sqlite").write_bytes(b"nonsense" * 200)
    result = run()
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 2


def test_a_file_that_cannot_be_looked_at_is_one_line(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "conversations.sqlite").symlink_to("conversations.sqlite")
    result = run()
    assert result.exit_code == 1
    assert "cannot be used: " in result.stderr and result.stderr.count("\n") == 2


@pytest.mark.usefixtures("filled")
def test_at_a_terminal_a_long_line_breaks_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fields, "terminal_columns", lambda: 20)
    assert run("2").stdout.splitlines()[2:4] == ["> moon moon moon ", "moon moon moon moon "]
