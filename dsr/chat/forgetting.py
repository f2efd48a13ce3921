"""Decides which exchanges a prompt leaves out when the conversation outgrows the context: the oldest first.

An exchange is a question with its answer, and between them the calls of tools with their results. The system prompt
and the files of questions always stay.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import prompts
from dsr.chat.given_files import files_that_stay
from dsr.loading.context import MIN_SLOT_TOKENS
from runtime.base.types import Message
from runtime.engine.template import answered

# The room for an answer is the context divided by this: 2,048 tokens of 8,192. A longer answer ends with the context.
_ANSWER_SHARE = 4
# A prompt gets at least the context divided by this, however long answers may be.
_PROMPT_SHARE = 2


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The oldest exchanges of a conversation that its prompts leave out.

    `tokens`: their size, without files. `summary` stands in their place; "" for none.
    """

    exchanges: int = 0
    tokens: int = 0
    summary: str = ""

    def __str__(self) -> str:
        """'the 3 oldest exchanges (1,204 tokens)'."""
        which = "oldest exchange" if self.exchanges == 1 else f"{self.exchanges} oldest exchanges"
        return f"the {which} ({self.tokens:,} tokens)"

    def since(self, before: Forgotten) -> Forgotten:
        """The part that was forgotten after `before`."""
        return replace(self, exchanges=self.exchanges - before.exchanges, tokens=self.tokens - before.tokens)


NOTHING = Forgotten()


def prompt_limit(longest: int, context: int, max_tokens: int | None, together: int = 1) -> int:
    """The most tokens of a prompt that leaves room for an answer.

    One sample with its prompt takes at most `longest` tokens. Its answer gets `max_tokens`, or a quarter of `longest`
    without that limit. Samples that are drawn `together` share the `context`, and each gets at least `MIN_SLOT_TOKENS`.
    The prompt gets at least half of `longest`.
    """
    answer = longest // _ANSWER_SHARE if max_tokens is None else max_tokens
    shared = together * MIN_SLOT_TOKENS if together > 1 else 0
    return max(min(longest - answer, context - shared), longest // _PROMPT_SHARE)


def exchanges(turns: Sequence[Message]) -> int:
    """The number of answered questions before the last of `turns`."""
    said = answered(turns)
    return sum(turn.role == "user" for turn in said) - bool(said and said[-1].role != "assistant")


def beginning(said: Sequence[Message], number: int) -> Sequence[Message]:
    """The first `number` exchanges of answered turns."""
    begun = [at for at, turn in enumerate(said) if turn.role == "user"]
    return said[: begun[number]] if number < len(begun) else said


def forget(length: Callable[[int], int], before: Forgotten, count: int, limit: int) -> Forgotten:
    """The exchanges that the next prompt leaves out: `before`, or more of the `count` if it exceeds `limit` tokens.

    `length(k)` is the tokens of the prompt without the oldest k exchanges; it falls with k. The remaining exchanges
    take at most half of their room. So the prompts of many questions begin alike, and the engine reuses its cache. The
    newest exchange stays if it fits.
    """
    gone = before.exchanges
    now = length(gone)
    if gone == count or now <= limit:
        return before
    least = length(count)
    target = least + max(0, limit - least) // 2
    number = gone + bisect_left(range(gone, count), -target, key=lambda k: -length(k))
    if number == count and length(count - 1) <= limit:
        number = count - 1
    return replace(before, exchanges=number, tokens=before.tokens + now - length(number))


def remaining(turns: Sequence[Message], forgotten: Forgotten) -> list[Message]:
    """The turns that the model reads, the last of which is a question.

    Files of forgotten exchanges and the summary stand before the first remaining question, because every chat template
    can write them there.
    """
    if not forgotten.exchanges:
        return list(turns)
    said = answered(turns)
    gone = beginning(said, forgotten.exchanges)
    kept = said[len(gone) :]
    first = kept[0].content
    if forgotten.summary:
        first = prompts.read("summary-layout").format(summary=forgotten.summary, question=first)
    return [replace(kept[0], content=files_that_stay(gone, kept) + first), *kept[1:]]
