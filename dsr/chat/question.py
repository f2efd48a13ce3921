"""The question of `dsr chat`: from arguments, from a pipe, with files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from runtime.base.errors import UsageError
from runtime.base.files import read_text
from runtime.engine.template import file_layout


@dataclass(frozen=True, slots=True)
class ModelAndQuestion:
    """The arguments of `dsr chat`, told apart."""

    model: str | None
    prompt: str | None


def split_arguments(
    first: str | None, second: str | None, model_option: str | None, prompt_option: str | None
) -> ModelAndQuestion:
    """Tell model and question apart: a first argument with white space is a question, without it is a model.

    The name of an existing file is a model in any case. Raises UsageError where model or question is given twice.
    """
    if first is not None and second is None:
        spaced = any(character.isspace() for character in first) and not os.path.isfile(first)
        if spaced or not first or model_option is not None:
            first, second = None, first
    if first is not None and model_option is not None:
        raise UsageError(f"two models were named: {first} and {model_option}")
    if second is not None and prompt_option is not None:
        raise UsageError("two questions were asked: one as an argument and one with -p")
    return ModelAndQuestion(first or model_option, second if second is not None else prompt_option)


def with_piped_text(piped: bytes | None, prompt: str | None) -> str | None:
    """The question: the piped text, then the prompt; None when both are empty.

    Raises UsageError for bytes that are no text.
    """
    try:
        text = (piped or b"").decode("utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError:
        raise UsageError("what was piped in is not text (UTF-8)") from None
    return "\n\n".join(part for part in (text, (prompt or "").strip()) if part) or None


def with_files(files: tuple[Path, ...], prompt: str | None) -> str | None:
    """The question with the files it is about before it, in the layout that DeepSeek documents for R1."""
    if not files:
        return prompt
    if prompt is None:
        raise UsageError(
            "-f gives a file to ask about, but no question was asked", hint="add the question as an argument"
        )
    for path in reversed(files):
        prompt = file_layout(path.name, read_text(path), prompt)
    return prompt
