"""What a program may ask for with a question."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from runtime.base.types import Message

# One question, or a conversation that ends with one.
Question = str | Sequence[Message]


class AnswerOptions(TypedDict, total=False):
    """How to answer. What is left out is as recommended for the model; a seed is then random.

    `system` is the system prompt. `files` stand before the question, as with `dsr chat -f`. `think` switches the
    thought on or off, and `effort` sets its level, for models that know it. `schema`: the answer is JSON of this JSON
    Schema. The others are settings of sampling, with the meaning that they have for `dsr chat`.
    """

    system: str
    files: Sequence[str | Path]
    think: bool
    effort: str
    schema: str
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    presence_penalty: float
    repeat_penalty: float
    seed: int
    max_tokens: int
    think_budget: int
    stop: Sequence[str]
