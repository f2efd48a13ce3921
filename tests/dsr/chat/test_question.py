"""The question of `dsr chat`: from arguments, from a pipe, with files."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.chat.question import ModelAndQuestion, split_arguments, with_files, with_piped_text
from runtime.base.errors import NotFound, UsageError


@pytest.mark.parametrize(
    ("first", "second", "model", "prompt", "asked"),
    [
        (None, None, None, None, ModelAndQuestion(None, None)),
        ("nano", None, None, None, ModelAndQuestion("nano", None)),
        ("nano", "hello", None, None, ModelAndQuestion("nano", "hello")),
        ("two words", None, None, None, ModelAndQuestion(None, "two words")),
        ("tab\tseparated", None, None, None, ModelAndQuestion(None, "tab\tseparated")),
        ("hello", None, "nano", None, ModelAndQuestion("nano", "hello")),
        ("nano", None, None, "hello", ModelAndQuestion("nano", "hello")),
        (None, None, None, "hello", ModelAndQuestion(None, "hello")),
        (None, None, "nano", "hello", ModelAndQuestion("nano", "hello")),
        ("", None, None, None, ModelAndQuestion(None, "")),
    ],
)
def test_model_and_question_are_told_apart(
    first: str | None, second: str | None, model: str | None, prompt: str | None, asked: ModelAndQuestion
) -> None:
    assert split_arguments(first, second, model, prompt) == asked


def test_the_name_of_a_file_is_a_model_in_spite_of_its_spaces(tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf"
    path.touch()
    assert split_arguments(str(path), None, None, None) == ModelAndQuestion(str(path), None)
    assert split_arguments("what is " + "x" * 5000, None, None, None).model is None


def test_two_models_or_two_questions_are_refused() -> None:
    with pytest.raises(UsageError, match="two models were named: a and b"):
        split_arguments("a", "hi", "b", None)
    with pytest.raises(UsageError, match="two questions"):
        split_arguments("a", "hi", None, "ho")


def test_what_is_piped_in_comes_before_the_question() -> None:
    assert with_piped_text(b"text\n", "Why?") == "text\n\nWhy?"
    assert with_piped_text(b"\xef\xbb\xbfone\r\ntwo\r\n", None) == "one\ntwo"
    assert with_piped_text(b" \n", "  ") is None
    assert with_piped_text(None, " Why? ") == "Why?"
    with pytest.raises(UsageError, match="what was piped in is not text"):
        with_piped_text(b"\xff\xfe\x00", "Why?")


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
        (tmp_path, UsageError, "cannot be read: Is a directory"),
    ):
        with pytest.raises(kind, match=problem):
            with_files((path,), "Why?")
    with pytest.raises(UsageError, match="no question was asked"):
        with_files((tmp_path / "binary",), None)
