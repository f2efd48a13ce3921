"""The prompt: what a model reads before it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

# (text, add_special) -> token ids; see `Backend.tokenize`.
Tokenize = Callable[..., list[int]]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt as text, and as tokens once it is `tokenized`.

    `starts_in_thought`: it ends inside an open thought. `begins_with_bos`: the text has the beginning-of-sequence token
    already, so the tokenizer must not add it a second time.
    """

    tokens: tuple[int, ...] = ()
    starts_in_thought: bool = False
    text: str = ""
    begins_with_bos: bool = False

    def tokenized(self, tokenize: Tokenize) -> Prompt:
        return replace(self, tokens=tuple(tokenize(self.text, add_special=not self.begins_with_bos)))
