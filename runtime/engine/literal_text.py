"""Special tokens that a message only spells: how they stay text.

A chat template writes control tokens by their spelling, into one text with the messages. So a message that spells one,
such as "<|im_end|>", would end its turn. Before a template sees the messages, a character that none of them has is put
after the first character of each spelling. After rendering it tells which spellings are only quoted, and goes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from runtime.base.errors import UsageError
from runtime.base.types import Message, Tool, ToolCall

# Noncharacters first, which no text should have (Unicode, section 23.7), then the private use planes.
_MARKS = (range(0xFDD0, 0xFDF0), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
_SMALL = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)

# llama.cpp takes these for control tokens whatever type the file gives them (src/llama-vocab.cpp as vendored in
# llama-cpp-python 0.3.36, llama_vocab::impl::load).
ALWAYS_CONTROL = (
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|constrain|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
    "<|tool_response>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "[e~[",
)


def special_spellings(control: Iterable[str], user_defined: Iterable[str], template: str) -> tuple[str, ...]:
    """The spellings that only a template may use.

    All control tokens, and those user-defined tokens that are marks: in the form <|...|>, or written by the template.
    Other user-defined tokens are plain text, such as Gemma's runs of line ends and tags of HTML.
    """
    marks = (text for text in user_defined if text.startswith(("<|", "<\uff5c")) or _is_mark(text, template))
    return tuple(dict.fromkeys(text for text in (*control, *ALWAYS_CONTROL, *marks) if text))


def _is_mark(text: str, template: str) -> bool:
    return len(text) > 2 and text in template and not text.isspace() and not text[0].isalnum()


@dataclass(frozen=True, slots=True)
class Marked:
    """Messages and tools whose spellings of special tokens have a `mark` after their first character."""

    messages: tuple[Message, ...]
    mark: str
    tools: tuple[Tool, ...] = ()

    def read(self, rendered: str) -> tuple[str, tuple[int, ...]]:
        """The rendered text without marks, and the offsets in it at which a spelling begins that is only text."""
        parts = rendered.replace(_escaped(self.mark), self.mark).split(self.mark)
        offsets, length = [], 0
        for part in parts[:-1]:
            length += len(part)
            if length:
                offsets.append(length - 1)
        return "".join(parts), tuple(offsets)


def marked(messages: Sequence[Message], spellings: Iterable[str], template: str, tools: Sequence[Tool] = ()) -> Marked:
    """Marks `spellings` in the messages and tools, for a template with the source `template`.

    Raises UsageError for messages that have every character that could be the mark.
    """
    everything = "\0".join([*(text for each in messages for text in _texts(each)), *map(str, tools)])
    folded = _folded(everything)
    present = [text for text in spellings if _folded(text) in folded]
    used = everything + template
    marks = (chr(code) for codes in _MARKS for code in codes)
    mark = next((each for each in marks if each not in used and _escaped(each) not in used), None)
    if mark is None:
        raise UsageError("the messages use every character of Unicode, and dsr needs one for itself")
    if not present:
        return Marked(tuple(messages), mark, tuple(tools))

    def signed(text: str) -> str:
        return _mark(text, present, mark)

    return Marked(
        tuple(_signed_message(each, signed) for each in messages),
        mark,
        tuple(Tool(each.name, signed(each.description), _signed_value(each.parameters, signed)) for each in tools),
    )


def _texts(message: Message) -> Iterator[str]:
    yield from (message.content, message.thinking, message.name, message.call_id)
    for call in message.calls:
        # As its text, and as its values, in which nothing is escaped.
        yield from (call.id, call.name, call.arguments, str(call.values))


def _signed_message(message: Message, signed: Callable[[str], str]) -> Message:
    calls = tuple(replace(call, arguments=_signed_arguments(call, signed)) for call in message.calls)
    return replace(message, content=signed(message.content), thinking=signed(message.thinking), calls=calls)


def _signed_arguments(call: ToolCall, signed: Callable[[str], str]) -> str:
    values = call.values
    written = _signed_value(values, signed)
    # What has no spelling stays as the model wrote it, white space included: it may be cached.
    return signed(call.arguments) if written == values else json.dumps(written, ensure_ascii=False)


def _signed_value(value: Any, signed: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return signed(value)
    if isinstance(value, Mapping):
        return {signed(str(key)): _signed_value(each, signed) for key, each in value.items()}
    return [_signed_value(each, signed) for each in value] if isinstance(value, (list, tuple)) else value


def _folded(text: str) -> str:
    """In small letters and as long as before: a template may write a message in other letters than it has."""
    return text.translate(_SMALL)


def _escaped(mark: str) -> str:
    """The mark as Python shows it, for a template that writes a list or a dictionary with messages in it."""
    return repr(mark)[1:-1]


def _mark(content: str, spellings: Sequence[str], mark: str) -> str:
    places: set[int] = set()
    folded = _folded(content)
    for spelling in map(_folded, spellings):
        at = folded.find(spelling)
        while at >= 0:
            places.add(at + 1)
            at = folded.find(spelling, at + 1)
    if not places:
        return content
    cuts = [0, *sorted(places), len(content)]
    return mark.join(content[begin:end] for begin, end in pairwise(cuts))
