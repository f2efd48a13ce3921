"""What the Tab key offers at the prompt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsr.chat.completion import FILES, Candidate, Command, candidates


def nothing(_: str) -> None:
    raise AssertionError


COMMANDS = {
    "/save": Command("", nothing, lambda _: (FILES,)),
    "/set": Command("", nothing, lambda before: () if before else ("temp", "top-p", "seed")),
    "/show": Command("", nothing),
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "my notes.txt").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("/s", ["/save", "/set", "/show"]),
        ("/se", ["/set"]),
        ("/set t", ["temp", "top-p"]),
        ("/set temp ", []),
        ("/show x", []),
        ("/nothing x", []),
        ("/save no", ["notes.txt"]),
        ("/save src/", [os.path.join("src", "main.py")]),
        ("/save my no", ["my notes.txt"]),
        ("plain text", []),
        ("look at @", ['"my notes.txt"', "notes.txt", "src/"]),
        ("look at @src/m", [os.path.join("src", "main.py")]),
        ('look at @"my', ['"my notes.txt"']),
        ("look at @.h", [".hidden"]),
        ("mail to a@n", []),
        ("/set temp about @no", ["notes.txt"]),
    ],
)
def test_the_tab_key_offers(line: str, offered: list[str]) -> None:
    assert [each.text for each in candidates(line, COMMANDS)] == offered


def test_a_candidate_takes_the_place_of_what_was_typed() -> None:
    assert candidates("/set te", COMMANDS) == [Candidate("temp", 2, "temp")]
    assert candidates('see @"my', COMMANDS) == [Candidate('"my notes.txt"', 3, "my notes.txt")]
