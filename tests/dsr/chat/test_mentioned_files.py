"""Files that a question names with an @."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.chat.mentioned_files import Mentions, mentions


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("notes.txt", "my notes.txt", "makefile"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("question", "files", "missing"),
    [
        ("Sum up @notes.txt", ["notes.txt"], []),
        ("Compare @notes.txt, @makefile and @notes.txt.", ["notes.txt", "makefile"], []),
        ('Read @"my notes.txt"!', ["my notes.txt"], []),
        ("Ask @alice about a@notes.txt", [], []),
        ("Read @none.txt and @src/x.", [], ["none.txt", "src/x"]),
        ("Read @~nobody-here/x.txt", [], ["~nobody-here/x.txt"]),
        ("@" + "x" * 5000, [], []),
        ("@ alone, and @...", [], []),
    ],
)
def test_the_files_of_a_question(question: str, files: list[str], missing: list[str]) -> None:
    assert mentions(question) == Mentions(tuple(map(Path, files)), tuple(missing))
