"""The words of `dsr chat` become a model and a question; a word that may be either is asked about at a terminal."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from dsr.models.references import Guess, guess
from dsr.ui.choice import choose
from dsr.ui.console import Console
from runtime.base.errors import NotFound, UsageError


@dataclass(frozen=True, slots=True)
class ModelAndQuestion:
    """The arguments of `dsr chat`, told apart. `near`: models that `model` may be meant as; None for a clear case."""

    model: str | None
    prompt: str | None
    near: tuple[str, ...] | None = None

    @property
    def all_words(self) -> str:
        """The words, if all of them are the question."""
        return " ".join(filter(None, (self.model, self.prompt)))


def split_arguments(
    words: Sequence[str], model_option: str | None = None, prompt_option: str | None = None
) -> ModelAndQuestion:
    """Tell model and question apart.

    The first word is the model, unless it has white space or cannot be a model. The name of an existing file is a
    model in any case. Further words are one question. Raises UsageError where model or question is given twice.
    """
    first, rest, near = None, list(words), None
    if words and model_option is not None:
        if rest[1:] and guess(words[0]).kind == "model":
            raise UsageError(f"two models were named: {words[0]} and {model_option}")
    elif words:
        found = _guess(words[0])
        if found.kind != "no" or prompt_option is not None:
            first, rest = words[0], list(words[1:])
        near = found.names if found.kind == "near" else None
    if rest and prompt_option is not None:
        raise UsageError("two questions were asked: one as an argument and one with -p")
    prompt = " ".join(rest) if rest else prompt_option
    return ModelAndQuestion(first or model_option, prompt, near)


def _guess(word: str) -> Guess:
    if os.path.isfile(word):
        return Guess("model")
    if not word or any(character.isspace() for character in word):
        return Guess("no")
    return guess(word)


def settled(asked: ModelAndQuestion, console: Console, *, interactive: bool) -> ModelAndQuestion:
    """The arguments without doubt. At a terminal a word that is nearly a model is asked about.

    Raises NotFound without a terminal, and where the answer is neither.
    """
    if asked.near is None or asked.model is None:
        return asked
    question = shlex.quote(asked.all_words)
    hint = f"did you mean {', '.join(asked.near)}? " if asked.near else ""
    hint += f"to ask it as a question: dsr chat -p {question}"
    error = NotFound(f"no model is called {asked.model!r}", hint=hint)
    if not (interactive and console.live):
        raise error
    if asked.near:
        answers = {"y": "yes", "q": "question", "n": "no"}
        said = choose(f"{error.message}. Use {asked.near[0]}? [y]es, [n]o; [q] it is a question:", answers)
    else:
        said = choose(f"{error.message}. Is it the question? [q]uestion, [n]o:", {"q": "question", "n": "no"})
    if said == "y":
        return ModelAndQuestion(asked.near[0], asked.prompt)
    if said == "q":
        return ModelAndQuestion(None, asked.all_words)
    raise error
