"""Where later prompts part from a prompt: the lengths at which a cache that cannot be cut is worth a checkpoint.

They are found without knowledge of the chat template: the prompts that may come next are built and compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import prompts
from runtime.base.common_prefix import common_length
from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.template import Prompt, Tokenize

# How texts begin: a letter, a word behind a space, a line end, a digit. Each merges with other ends of the text before.
_BEGINNINGS = ("x", " x", "\n", "1")
# Characters before a branch that are tokenized again. Pre-tokenizers cut much earlier; where not, there is no branch.
_STRETCH = 256


def branches(
    prompt: Prompt, messages: Sequence[Message], build: Callable[[Sequence[Message]], Prompt], tokenize: Tokenize
) -> tuple[int, ...]:
    """Lengths of the prefixes of `prompt.tokens` that later prompts will share: ascending, above 0, below the whole.

    `prompt` is tokenized and made of `messages` by `build`, which writes prompts without tokens. The prefixes end at
    the first question; at the last question, if a file stands before it; and before the answer, as far as the next turn
    repeats this prompt. If the template refuses a later prompt, or writes it otherwise from the start, it gives none.
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
    """The number of first tokens of all texts that part from the prompt where `later` does; 0 if unknown.

    The last token before that cut may depend on the text behind it. Only a stretch before the cut is tokenized with
    each way to continue, and its place among all tokens is found at their end.
    """
    text = prompt.text
    cut = common_length(text, later)
    ways = (*_BEGINNINGS, later[cut : cut + _STRETCH])
    begin = max(0, cut - _STRETCH)
    end = len(text) if 2 * cut > len(text) else cut + _STRETCH

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
