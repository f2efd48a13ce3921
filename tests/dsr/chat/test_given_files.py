"""Files that are part of a question."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.chat.given_files import files_that_stay, given_files, newest_in_place, parted, with_files
from runtime.base.errors import NotFound, UsageError
from runtime.base.types import Message
from runtime.engine.template import file_layout
from runtime.strategies.paragraphs import Document

NOTES = "[file name]: notes.txt\n[file content begin]\nmilk\n[file content end]\n"
LIST = "[file name]: list.txt\n[file content begin]\neggs\n[file content end]\n"
TEXTS = st.text(alphabet="ab \n[]", max_size=12)


def test_files_stand_before_the_question_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfalpha {x}\r\n")
    (tmp_path / "b.txt").write_text("beta")
    prompt = with_files((tmp_path / "a.txt", tmp_path / "b.txt"), "Why?")
    assert prompt is not None
    positions = [prompt.index(text) for text in ("a.txt", "alpha {x}", "b.txt", "beta", "Why?")]
    assert positions == sorted(positions)
    assert "\ufeff" not in prompt and "\r" not in prompt
    assert with_files((), None) is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    for path, kind, problem in (
        (tmp_path / "none", NotFound, "no such file"),
        (tmp_path / "binary", UsageError, "is not a text file"),
        (tmp_path, UsageError, "is a folder"),
    ):
        with pytest.raises(kind, match=problem):
            with_files((path,), "Why?")
    with pytest.raises(UsageError, match="no question was asked"):
        with_files((tmp_path / "binary",), None)


def test_files_are_found_again_in_a_question() -> None:
    assert given_files("Why?") == ()
    found = given_files(NOTES + LIST + "Why?")
    assert [(file.name, file.text) for file in found] == [("notes.txt", NOTES), ("list.txt", LIST)]
    assert given_files(NOTES)[0].text == NOTES


@pytest.mark.parametrize(
    "question",
    [
        "[file name]: notes.txt",
        "[file name]: notes.txt\n[file content begin]\nmilk",
        "[file name]: a\nb\n[file content begin]\nmilk\n[file content end]\nWhy?",
        "Look: " + NOTES,
    ],
)
def test_what_only_resembles_a_file_is_a_question(question: str) -> None:
    assert given_files(question) == ()


def test_a_file_about_the_layout_is_one_file() -> None:
    text = file_layout("layout.md", "ends with\n[file content end]\nand a question", "Why?")
    assert [file.text + "Why?" for file in given_files(text)] == [text]


@given(st.lists(st.tuples(st.sampled_from(["a", "b c", "d.py"]), TEXTS), max_size=4), TEXTS)
def test_every_file_comes_back(files: list[tuple[str, str]], question: str) -> None:
    text = question
    for name, content in reversed(files):
        text = file_layout(name, content, text)
    found = given_files(text)
    assert [file.name for file in found] == [name for name, _ in files]
    assert "".join(file.text for file in found) + question == text


def user(*texts: str) -> list[Message]:
    return [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(texts)]


def test_a_file_given_again_takes_the_place_of_its_earlier_version() -> None:
    newer = NOTES.replace("milk", "honey")
    turns = user(NOTES + "Why?", "-", LIST + "And?", "-", newer + "Now?")
    assert newest_in_place(turns) == (user(newer + "Why?", "-", LIST + "And?", "-", "Now?"), ("notes.txt",))
    assert newest_in_place(user(*(turn.content for turn in turns), "-", "So?")) == (
        user(newer + "Why?", "-", LIST + "And?", "-", "Now?", "-", "So?"),
        (),
    )


def test_the_same_file_again_changes_nothing() -> None:
    assert newest_in_place(user(NOTES + "Why?", "-", NOTES + "Now?")) == (user(NOTES + "Why?", "-", "Now?"), ())


def test_files_of_one_name_in_one_question_are_left_alone() -> None:
    newer = NOTES.replace("milk", "honey")
    turns = user(NOTES + newer + "Compare", "-", newer + LIST + "Now?")
    assert newest_in_place(turns) == (turns, ())
    assert newest_in_place([]) == ([], ())


def test_files_of_forgotten_questions_stay_but_for_older_versions() -> None:
    newer = NOTES.replace("milk", "honey")
    gone = [Message("user", NOTES + LIST + "Why?"), Message("assistant", NOTES)]
    assert files_that_stay(gone, [Message("user", "And?")]) == NOTES + LIST
    assert files_that_stay(gone, [Message("user", newer + "And?")]) == LIST
    assert files_that_stay([*gone, Message("user", newer + "And?"), Message("assistant", "-")], []) == LIST + newer
    two_folders = [Message("user", NOTES + newer + "Compare")]
    assert files_that_stay(two_folders, [Message("user", "And?")]) == NOTES + newer


# Files as documents, for a strategy that reads them in parts


def test_files_become_documents_and_leave_the_question() -> None:
    said, documents = parted([Message("system", "Be brief."), Message("user", NOTES + LIST + "Why?")])
    assert [each.content for each in said] == ["Be brief.", "Why?"]
    assert documents == (Document("notes.txt", "milk"), Document("list.txt", "eggs"))


def test_of_a_file_that_was_given_again_the_last_version_counts() -> None:
    newer = NOTES.replace("milk", "bread")
    said, documents = parted(
        [Message("user", NOTES + "Why?"), Message("assistant", "So."), Message("user", newer + "And?")]
    )
    assert [each.content for each in said] == ["Why?", "So.", "And?"]
    assert documents == (Document("notes.txt", "bread"),)


def test_without_a_file_the_last_paragraph_is_the_question() -> None:
    said, documents = parted([Message("user", "one\n\ntwo\n\nWhy?\n")])
    assert said == [Message("user", "Why?")]
    assert documents == (Document("text", "one\n\ntwo"),)
    assert parted([Message("user", "Why?")]) == ([Message("user", "Why?")], ())
