"""`dsr config` and `dsr alias`."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from dsr.commands.config import edit
from dsr.models import library
from dsr.store import paths, settings, settings_file
from runtime.base.errors import UsageError


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_each_value_has_its_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_THREADS", "3")
    assert run("config", "top_p", "0.9")[0] == 0
    code, out, _ = run("config")
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()}
    assert (code, rows["threads"]) == (0, ["3", "environment", "(DSR_THREADS)"])
    assert rows["top_p"] == ["0.9", "file", f"({paths.config_file()})"]
    assert rows["kv_type"] == ["f16", "default"]
    assert rows["model"] == ["nano", "default"]
    assert "min_p" not in rows
    assert "min_p" in run("config", "list", "--all")[1]
    body = json.loads(run("config", "--json")[1])
    assert [each for each in body["settings"] if each["key"] == "threads"] == [
        {"key": "threads", "value": 3, "origin": "environment", "source": "DSR_THREADS"}
    ]


def test_a_value_is_set_read_and_removed() -> None:
    assert run("config", "set", "ctx_size", "8192")[0] == 0
    assert run("config", "get", "ctx_size", "-q") == (0, "8192\n", "")
    assert settings.load(paths.config_file()).ctx_size == 8192
    assert run("config", "unset", "ctx_size")[0] == 0
    assert run("config", "ctx_size", "-q") == (0, "", "")
    assert settings.load(paths.config_file()).ctx_size is None
    assert run("config", "path")[1] == f"{paths.config_file()}\n"


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["thread", "3"], 2, "unknown setting 'thread'"),
        (["threads", "many"], 2, "error: dsr config threads: must be a whole number, not 'many'"),
        (["threads", "100000"], 2, "error: dsr config threads: threads must be between 1 and 512, not 100000"),
        (["thinking", "loud"], 2, "must be one of show, hide, summary"),
        (["kv_type", "f17"], 2, "'f17' is not a type of KV cache"),
        (["model", "no-such-model"], 3, "no model is called 'no-such-model'"),
        (["x"], 2, "error: dsr config: unknown setting 'x'"),
        (["get", "x"], 2, "unknown setting 'x'"),
        (["unset", "x"], 2, "unknown setting 'x'"),
        (["edit"], 2, "needs a terminal"),
    ],
)
def test_a_wrong_value_changes_nothing(words: list[str], code: int, problem: str) -> None:
    found, _, err = run("config", *words)
    assert found == code
    assert problem in " ".join(err.split())
    assert not paths.config_file().exists()


def test_the_other_lines_stay(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('# mine\nmodel = "nano"  # small\n\nthreads=2\n')
    settings_file.set_value(file, "threads", "4")
    assert file.read_text() == '# mine\nmodel = "nano"  # small\n\nthreads = 4\n'
    settings_file.set_value(file, "log", "no")
    assert file.read_text() == '# mine\nmodel = "nano"  # small\n\nthreads = 4\nlog = false\n'
    settings_file.unset(file, "model")
    assert file.read_text() == "# mine\n\nthreads = 4\nlog = false\n"


def test_a_line_that_is_no_single_one_is_left_to_the_user(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('model = """\nnano"""\n')
    with pytest.raises(UsageError, match="the line of model cannot be changed by dsr"):
        settings_file.set_value(file, "model", "qwen3:8b")
    assert file.read_text() == 'model = """\nnano"""\n'


@pytest.mark.skipif(sys.platform == "win32", reason="a program of POSIX")
def test_an_edited_file_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "threads = 0" >> "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(UsageError, match="threads must be at least 1, not 0"):
        edit()
    assert paths.config_file().read_text().endswith("dsr config list\nthreads = 0\n")


# --- alias


def test_a_name_stands_for_a_model(nano_path: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(nano_path.read_bytes())
    assert run("alias", "own", str(mine))[0] == 0
    assert library.find("own").path == mine
    assert library.find("OWN").path == mine
    assert run("alias", "second", "own", "-q")[0] == 0
    assert run("alias", "second") == (0, f"{mine}\n", "")
    assert run("alias", "-q")[1] == "own\nsecond\n"
    assert run("alias", "remove", "own")[0] == 0
    assert library.find("second").path == mine
    assert run("show", "own")[0] == 3
    assert mine.exists()


def test_a_name_may_be_of_a_model_that_is_not_here() -> None:
    assert run("alias", "r1", "deepseek-r1:1.5b")[0] == 0
    code, _, err = run("chat", "r1", "hi")
    assert (code, "hint: dsr pull deepseek-r1:1.5b" in err) == (3, True)
    body = json.loads(run("alias", "--json")[1])
    assert (body["schema"], body["aliases"]) == ("dsr.alias.list/1", {"r1": "deepseek-r1:1.5b"})


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        (["nano", "nano"], 2, "nano is the name of a model that dsr knows"),
        (["deepseek-r1", "nano"], 2, "is the name of a model that dsr knows"),
        (["a/b", "nano"], 2, "'a/b' cannot be a name for a model"),
        (["x.gguf", "nano"], 2, "cannot be a name for a model"),
        (["set", "list", "nano"], 2, "'list' cannot be a name for a model"),
        (["x", "no-such-model"], 3, "no model is called 'no-such-model'"),
        (["remove", "x"], 3, "you gave no model the name 'x'"),
        (["show", "x"], 3, "you gave no model the name 'x'"),
    ],
)
def test_a_wrong_name_is_refused(words: list[str], code: int, problem: str) -> None:
    found, _, err = run("alias", *words)
    assert (found, problem in " ".join(err.split())) == (code, True), err
    assert not paths.aliases_file().exists()


def test_a_damaged_file_of_names_is_one_line() -> None:
    paths.aliases_file().parent.mkdir(parents=True, exist_ok=True)
    paths.aliases_file().write_text('"A b" = 3\n')
    code, _, err = run("show", "nano")
    assert (code, f"error: {paths.aliases_file()}: A b must be a text" in " ".join(err.split())) == (2, True)


def test_names_of_an_edited_file_that_stand_for_each_other_are_refused() -> None:
    file = paths.aliases_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text('one = "two"\ntwo = "one"\n')
    said = "error: your name one stands for two, which is not a model but another of your names"
    for words in (("chat", "one", "hi"), ("show", "one"), ("alias", "three", "one")):
        code, _, err = run(*words)
        assert (code, " ".join(err.split())) == (2, f"{said} hint: name the model itself: dsr alias one MODEL")
    assert run("alias", "one", "nano")[0] == 0
    assert run("alias", "two", "one")[0] == 0
    assert run("alias", "-q")[1] == "one\ntwo\n"
