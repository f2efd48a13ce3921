"""Where later prompts part from a prompt: the lengths at which a cache that cannot be cut is worth a checkpoint.

Found without knowing the chat template, by building the prompts that may come next and comparing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import prompts
from runtime.base.common_prefix import common_length
from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.template import Prompt, Tokenize

# How texts begin: a letter, a word behind a space, a line end, a digit. Each merges with other ends of what is before.
_BEGINNINGS = ("x", " x", "\n", "1")
# Characters before a branch that are tokenized again. Pre-tokenizers cut much earlier; where not, there is no branch.
_WINDOW = 256


def branches(
    prompt: Prompt, messages: Sequence[Message], build: Callable[[Sequence[Message]], Prompt], tokenize: Tokenize
) -> tuple[int, ...]:
    """Ascending lengths of `prompt.tokens`, all above 0 and below the whole, with which later prompts will begin.

    `prompt` is tokenized and made of `messages` by `build`, which writes prompts without tokens. The lengths: up to the
    first question; up to the last question, where a file stands before it; up to the answer, as far as the next turn
    repeats this prompt. A template that refuses a later prompt, or writes it otherwise from the start, gives none.
    """
    found = set()
    for later in _later(messages):
        try:
            text = build(later).text
        except Incompatible:
            continue
        found.add(min(_length(prompt, text, tokenize), len(prompt.tokens) - 1))
    return tuple(sorted(length for length in found if length > 0))


def _later(messages: Sequence[Message]) -> Iterator[tuple[Message, ...]]:
    """Conversations that may come: another one, another question about the same file, the next turn."""
    first = next((message for message in messages if message.role == "user"), None)
    if first is None or messages[-1].role != "user":
        return
    yield (*(each for each in messages if each.role == "system"), Message("user", _other(first.content)))
    *before, last = messages
    question = _behind_file(last.content)
    if question is not None:
        yield (*before, Message("user", last.content[:question] + _other(last.content[question:])))
    # Nothing that a template writes behind its header of an answer begins like this one.
    yield (*messages, Message("assistant", "\u2603"), Message("user", "x"))


def _other(text: str) -> str:
    """A text that begins with another character, also when white space is taken off both."""
    return "y" if text.lstrip().startswith("x") else "x"


def _behind_file(content: str) -> int | None:
    """The offset at which a question about a file begins, in the layout of `file_layout`; None without a file."""
    _, _, behind = prompts.read("file-layout").partition("{file_content}")
    end = behind.removesuffix("{question}")
    at = content.rfind(end)
    return at + len(end) if at >= 0 else None


def _length(prompt: Prompt, later: str, tokenize: Tokenize) -> int:
    """How many of the tokens every text has that parts from the prompt where `later` does; 0 if unknown.

    The last token before that cut may be another one where the text goes on differently. Only a window before the cut
    is tokenized for each way to go on, and its place among the tokens is found at their end.
    """
    text = prompt.text
    cut = common_length(text, later)
    ways = (*_BEGINNINGS, later[cut : cut + _WINDOW])
    begin = max(0, cut - _WINDOW)
    end = len(text) if 2 * cut > len(text) else cut + _WINDOW

    def read(begin: int, end: int, more: str = "", *, add_bos: bool = False) -> Sequence[int]:
        literal = tuple(at - begin for at in prompt.literal if begin <= at < end)
        return tokenize(text[begin:end] + more, add_bos=add_bos, literal=literal)

    whole = prompt.tokens if end >= len(text) else read(0, end, add_bos=True)
    near = read(begin, end)
    placed = common_length(whole[::-1], near[::-1])
    inside = min(common_length(near, read(begin, cut, more)) for more in ways)
    if inside < len(near) - placed:
        return 0
    return min(len(whole) - len(near) + inside, common_length(whole, prompt.tokens))
