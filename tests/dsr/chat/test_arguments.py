"""The words of `dsr chat`: a model, a question, or a word that may be either."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.chat import arguments
from dsr.chat.arguments import ModelAndQuestion, settled, split_arguments
from dsr.ui.console import Console
from runtime.base.errors import NotFound, UsageError


@pytest.mark.parametrize(
    ("words", "model", "prompt", "asked"),
    [
        ([], None, None, ModelAndQuestion(None, None)),
        (["nano"], None, None, ModelAndQuestion("nano", None)),
        (["nano", "hello"], None, None, ModelAndQuestion("nano", "hello")),
        (["nano", "why", "is", "it"], None, None, ModelAndQuestion("nano", "why is it")),
        (["hi"], None, None, ModelAndQuestion(None, "hi")),
        (["2+2"], None, None, ModelAndQuestion(None, "2+2")),
        (["why", "is", "the", "sky", "blue"], None, None, ModelAndQuestion(None, "why is the sky blue")),
        (["two words"], None, None, ModelAndQuestion(None, "two words")),
        (["tab\tseparated"], None, None, ModelAndQuestion(None, "tab\tseparated")),
        (["qwen9:1b"], None, None, ModelAndQuestion("qwen9:1b", None)),
        (["org/repo", "hi"], None, None, ModelAndQuestion("org/repo", "hi")),
        (["hello"], "nano", None, ModelAndQuestion("nano", "hello")),
        (["so", "what"], "nano", None, ModelAndQuestion("nano", "so what")),
        (["nano"], None, "hello", ModelAndQuestion("nano", "hello")),
        (["word"], None, "hello", ModelAndQuestion("word", "hello")),
        ([], None, "hello", ModelAndQuestion(None, "hello")),
        ([], "nano", "hello", ModelAndQuestion("nano", "hello")),
        ([""], None, None, ModelAndQuestion(None, "")),
        (["nanoo", "hi"], None, None, ModelAndQuestion("nanoo", "hi", ("nano",))),
    ],
)
def test_model_and_question_are_told_apart(
    words: list[str], model: str | None, prompt: str | None, asked: ModelAndQuestion
) -> None:
    assert split_arguments(words, model, prompt) == asked


def test_the_name_of_a_file_is_a_model_in_spite_of_its_spaces(tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf"
    path.touch()
    assert split_arguments([str(path)]) == ModelAndQuestion(str(path), None)
    assert split_arguments(["what is " + "x" * 5000]).model is None


def test_two_models_or_two_questions_are_refused() -> None:
    with pytest.raises(UsageError, match="two models were named: nano and b"):
        split_arguments(["nano", "hi"], "b", None)
    with pytest.raises(UsageError, match="two questions"):
        split_arguments(["nano", "hi"], None, "ho")


def test_a_word_that_is_nearly_a_model_is_refused_without_a_terminal() -> None:
    with pytest.raises(NotFound, match="no model is called 'nanoo'") as caught:
        settled(split_arguments(["nanoo", "hi"]), Console(), interactive=False)
    assert caught.value.hint == "did you mean nano? to ask it as a question: dsr chat -p 'nanoo hi'"
    clear = ModelAndQuestion("nano", "hi")
    assert settled(clear, Console(), interactive=False) is clear


@pytest.mark.parametrize(
    ("said", "settled_as"),
    [("y", ModelAndQuestion("nano", "hi")), ("q", ModelAndQuestion(None, "nanoo hi")), ("n", None)],
)
def test_at_a_terminal_dsr_asks_back(
    said: str, settled_as: ModelAndQuestion | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def choose(question: str, answers: object) -> str:
        asked.append(question)
        return said

    monkeypatch.setattr(arguments, "choose", choose)
    monkeypatch.setattr(Console, "live", True)
    words = split_arguments(["nanoo", "hi"])
    if settled_as is None:
        with pytest.raises(NotFound):
            settled(words, Console(), interactive=True)
    else:
        assert settled(words, Console(), interactive=True) == settled_as
    assert asked == ["no model is called 'nanoo'. Use nano? [y]es, [n]o; [q] it is a question:"]
